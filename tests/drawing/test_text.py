from unicodedata import normalize

import numpy as np
import pytest
from PIL import ImageFont

from lightning_heads.drawing import sheet
from lightning_heads.drawing.figure import label, new_figure
from lightning_heads.drawing.sheet import Row, draw_sheet
from lightning_heads.drawing.text import drawable


def _sheet(text: str) -> np.ndarray:
    row = Row([np.zeros((20, 20, 3), np.uint8)], [text], frozenset([(0, text, None)]))
    return np.asarray(draw_sheet(text, [text], [row]))


@pytest.mark.parametrize("font", ["installed", "Pillow's own"])
def test_letters_with_diacritics_are_drawn(monkeypatch: pytest.MonkeyPatch, font: str) -> None:
    if font == "Pillow's own":
        monkeypatch.setattr(sheet, "load_font", ImageFont.load_default)
    names = ["Kühe", "Kohe", "Kéhe", "Kñhe", "Straße", "Łódź", "牛", "\uffff", "caf\udce9"]
    drawn = [_sheet(name).tobytes() for name in names]
    assert len({*drawn}) == len(names)  # not the same box
    assert (_sheet(normalize("NFD", "Kühe")) == _sheet(normalize("NFC", "Kühe"))).all()


def test_characters_that_a_font_lacks_are_replaced() -> None:
    font = ImageFont.load_default(13)
    assert drawable("a_b-1.png …", font) == "a_b-1.png …"
    assert drawable(normalize("NFD", "Çoğ") + normalize("NFC", "üÉ"), font) == "CoguE"
    assert drawable("ß日\udce9", font) == r"\xdf\u65e5\udce9"


@pytest.mark.parametrize("name", ["price_$5_of_$10.png", "$x^$", "caf\udce9.png", "Kühe.png"])
def test_any_file_name_is_a_label_of_a_figure(name: str) -> None:
    figure = new_figure(2, 2)
    figure.add_subplot().set_xlabel(label(name))
    figure.canvas.draw()  # type: ignore[attr-defined]
