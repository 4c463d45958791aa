"""Colors of classes, and sheets of pictures, drawn pixel by pixel with Pillow."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .palette import Color

Pixels = NDArray[np.uint8]
_WHITE = (255, 255, 255)


_MARGIN, _LINE, _SWATCH = 14, 20, 14


def to_pixels(image: Tensor) -> Pixels:
    """Turns an image in 0..1, `(c, h, w)`, into red, green and blue bytes `(h, w, 3)`.

    One or two channels are shown as gray, four over white by the last, of others the first three.
    """
    image = image.float().nan_to_num(0).clamp(0, 1)
    if len(image) == 4:
        image = image[:3] * image[3:] + 1 - image[3:]
    image = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    pixels: Pixels = (image * 255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()
    return pixels


def hatch(pixels: Pixels, where: NDArray[np.bool_]) -> Pixels:
    """Covers a part of a picture with gray stripes."""
    rows, columns = np.indices(where.shape)
    stripes = np.where((rows + columns) // 4 % 2, 96, 176)[..., None]
    covered: Pixels = np.where(where[..., None], pixels // 4 + stripes // 4 * 3, pixels).astype(np.uint8)
    return covered


@dataclass(frozen=True)
class Row:
    """Pictures side by side with a line below each, and what a legend must explain of them.

    The legend has a place in the order, a name and a color for each entry; None is hatched.
    """

    pictures: list[Pixels]
    captions: list[str]
    legend: frozenset[tuple[int, str, Color | None]] = frozenset()


def draw_sheet(title: str, columns: Sequence[str], rows: Sequence[Row]) -> Image.Image:
    """Draws rows of pictures, pixel for pixel, below a title and the names of the columns, above a legend."""
    font = ImageFont.load_default(13)
    widths = [max(140, *(row.pictures[i].shape[1] for row in rows)) for i in range(len(columns))]
    heights = [max(picture.shape[0] for picture in row.pictures) for row in rows]
    lefts = [_MARGIN + sum(widths[:i]) + i * _MARGIN for i in range(len(columns))]
    title_font = ImageFont.load_default(17)
    width = max(lefts[-1] + widths[-1], _MARGIN + int(title_font.getlength(title))) + _MARGIN
    entries = _place_legend(sorted(frozenset().union(*(row.legend for row in rows)), key=lambda e: e[0]), font, width)
    head = _MARGIN + 26 + _LINE
    body = sum(heights) + len(rows) * (_LINE + _MARGIN)
    sheet = Image.new("RGB", (width, head + body + (entries[-1][1] + _LINE + _MARGIN if entries else 0)), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN, _MARGIN - 4), title, "black", title_font)
    for left, name in zip(lefts, columns, strict=True):
        pen.text((left, head - _LINE), name, "black", font)
    top = head
    for row, height in zip(rows, heights, strict=True):
        for left, room, picture, caption in zip(lefts, widths, row.pictures, row.captions, strict=True):
            sheet.paste(Image.fromarray(picture), (left, top))
            pen.text((left, top + height + 3), _shorten(caption, font, room), "dimgray", font)
        top += height + _LINE + _MARGIN
    for left, down, name, color in entries:
        swatch = np.full((_SWATCH, _SWATCH, 3), color or _WHITE, np.uint8)
        if color is None:
            swatch = hatch(swatch, np.ones((_SWATCH, _SWATCH), bool))
        sheet.paste(Image.fromarray(swatch), (left, top + down))
        pen.rectangle((left, top + down, left + _SWATCH - 1, top + down + _SWATCH - 1), outline="gray")
        pen.text((left + _SWATCH + 5, top + down - 1), name, "black", font)
    return sheet


def _place_legend(
    entries: Sequence[tuple[int, str, Color | None]], font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> list[tuple[int, int, str, Color | None]]:
    """Returns left and top of each entry, in lines that are not wider than the sheet."""
    placed, left, top = [], _MARGIN, 0
    for _, name, color in entries:
        name = _shorten(name, font, width - 2 * _MARGIN - _SWATCH - 5)
        need = _SWATCH + 5 + int(font.getlength(name))
        if left > _MARGIN and left + need > width - _MARGIN:
            left, top = _MARGIN, top + _LINE
        placed.append((left, top, name, color))
        left += need + _MARGIN
    return placed


def _shorten(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: int) -> str:
    """Leaves out the beginning of a text, as files are told apart by their ends, until it fits."""
    start = 0
    while start < len(text) and font.getlength(text if start == 0 else f"…{text[start:]}") > room:
        start += 1
    return text if start == 0 else f"…{text[start:]}"
