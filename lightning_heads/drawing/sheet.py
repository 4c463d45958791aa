"""Contact sheets: rows of pictures with captions and a legend, drawn with Pillow."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from .palette import Color
from .text import Font, drawable, load_font

Pixels = NDArray[np.uint8]
_WHITE = (255, 255, 255)
_MARGIN, _LINE, _SWATCH = 14, 20, 14  # pixels


def to_pixels(image: Tensor) -> Pixels:
    """Converts an image in 0..1, `(c, h, w)`, to RGB bytes `(h, w, 3)`.

    The first of one or two channels is shown as gray, four are RGBA over white, and of any other number the first
    three are shown.
    """
    image = image.float().nan_to_num(0).clamp(0, 1)
    if len(image) == 4:
        image = image[:3] * image[3:] + 1 - image[3:]
    image = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    pixels: Pixels = (image * 255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()
    return pixels


def hatch(pixels: Pixels, where: NDArray[np.bool_]) -> Pixels:
    """Draws gray stripes over the pixels of a picture where the mask `(h, w)` is true."""
    rows, columns = np.indices(where.shape)
    stripes = np.where((rows + columns) // 4 % 2, 96, 176)[..., None]
    covered: Pixels = np.where(where[..., None], pixels // 4 + stripes // 4 * 3, pixels).astype(np.uint8)
    return covered


@dataclass(frozen=True)
class Row:
    """A row of pictures with a caption below each, and their entries in the legend.

    An entry is its position in the order of the legend, a name and a color; None stands for hatching.
    """

    pictures: list[Pixels]
    captions: list[str]
    legend: frozenset[tuple[int, str, Color | None]] = frozenset()


def draw_sheet(title: str, columns: Sequence[str], rows: Sequence[Row]) -> Image.Image:
    """Draws a title, the names of the columns, rows of pictures without resizing them, and a legend."""
    font, title_font = load_font(13), load_font(17)
    title = drawable(title, title_font)
    widths = [max(140, *(row.pictures[i].shape[1] for row in rows)) for i in range(len(columns))]
    heights = [max(picture.shape[0] for picture in row.pictures) for row in rows]
    lefts = [_MARGIN + sum(widths[:i]) + i * _MARGIN for i in range(len(columns))]
    width = max(lefts[-1] + widths[-1], _MARGIN + int(title_font.getlength(title))) + _MARGIN
    entries = _place_legend(sorted(frozenset().union(*(row.legend for row in rows)), key=lambda e: e[0]), font, width)
    head = _MARGIN + 26 + _LINE
    body = sum(heights) + len(rows) * (_LINE + _MARGIN)
    sheet = Image.new("RGB", (width, head + body + (entries[-1][1] + _LINE + _MARGIN if entries else 0)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN - 4), title, "black", title_font)
    for left, name in zip(lefts, columns, strict=True):
        draw.text((left, head - _LINE), drawable(name, font), "black", font)
    top = head
    for row, height in zip(rows, heights, strict=True):
        for left, column_width, picture, caption in zip(lefts, widths, row.pictures, row.captions, strict=True):
            sheet.paste(Image.fromarray(picture), (left, top))
            draw.text((left, top + height + 3), _shorten(caption, font, column_width), "dimgray", font)
        top += height + _LINE + _MARGIN
    for left, offset, name, color in entries:
        swatch = np.full((_SWATCH, _SWATCH, 3), color or _WHITE, np.uint8)
        if color is None:
            swatch = hatch(swatch, np.ones((_SWATCH, _SWATCH), bool))
        sheet.paste(Image.fromarray(swatch), (left, top + offset))
        draw.rectangle((left, top + offset, left + _SWATCH - 1, top + offset + _SWATCH - 1), outline="gray")
        draw.text((left + _SWATCH + 5, top + offset - 1), name, "black", font)
    return sheet


def _place_legend(
    entries: Sequence[tuple[int, str, Color | None]], font: Font, width: int
) -> list[tuple[int, int, str, Color | None]]:
    """Returns the left and top of each entry, its name and its color, in lines that are not wider than the sheet."""
    placed, left, top = [], _MARGIN, 0
    for _, name, color in entries:
        name = _shorten(name, font, width - 2 * _MARGIN - _SWATCH - 5)
        entry_width = _SWATCH + 5 + int(font.getlength(name))
        if left > _MARGIN and left + entry_width > width - _MARGIN:
            left, top = _MARGIN, top + _LINE
        placed.append((left, top, name, color))
        left += entry_width + _MARGIN
    return placed


def _shorten(text: str, font: Font, max_width: int) -> str:
    """Truncates the beginning of a text, since file paths differ at their ends, until it fits a width in pixels."""
    text, start = drawable(text, font), 0
    while start < len(text) and font.getlength(text if start == 0 else f"…{text[start:]}") > max_width:
        start += 1
    return text if start == 0 else f"…{text[start:]}"
