"""Fonts for Pillow, and text that they can draw."""

import unicodedata
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# found by name in the fonts of the system
_SYSTEM_FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "Arial.ttf", "arial.ttf")


@cache
def load_font(size: int) -> Font:
    """Returns a font of a size in pixels: matplotlib's or the system's, else Pillow's own, which has only ASCII."""
    matplotlib = find_spec("matplotlib")
    folders = [] if matplotlib is None else matplotlib.submodule_search_locations or []
    for file in (*(str(Path(folder, "mpl-data/fonts/ttf/DejaVuSans.ttf")) for folder in folders), *_SYSTEM_FONTS):
        try:
            return ImageFont.truetype(file, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def drawable(text: str, font: Font) -> str:
    r"""Replaces characters that a font lacks by their base letter in ASCII, or else by an escape such as `\u65e5`.

    >>> drawable("Zoë and 日", ImageFont.load_default(13))
    'Zoe and \\u65e5'
    """
    # file systems may store letters and their diacritics separately
    composed = unicodedata.normalize("NFC", text)
    return "".join(c if c.isascii() or c == "…" or _has_glyph(font, c) else _in_ascii(c) for c in composed)


def _has_glyph(font: Font, character: str) -> bool:
    missing = "\uffff"  # never a character, so that the glyph for missing ones is drawn
    return isinstance(font, ImageFont.FreeTypeFont) and bytes(font.getmask(character)) != bytes(font.getmask(missing))


def _in_ascii(character: str) -> str:
    base = "".join(c for c in unicodedata.normalize("NFKD", character) if not unicodedata.combining(c))
    return base if base and base.isascii() else character.encode("ascii", "backslashreplace").decode()
