"""Colours of classes, and sheets of pictures, drawn pixel by pixel with Pillow."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

Colour = tuple[int, int, int]
Pixels = NDArray[np.uint8]

_OKABE_ITO = [
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
]
_GREY, _WHITE = (128, 128, 128), (255, 255, 255)
# Linear RGB as it is seen without the cones for green, and for red (Machado et al. 2009).
_DEUTERANOPIA = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
_PROTANOPIA = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
# From linear RGB to the cones, and from their cube roots to Oklab (Ottosson 2020), where distances are as perceived.
_CONES = [[0.4122215, 0.5363325, 0.0514460], [0.2119035, 0.6806995, 0.1073970], [0.0883025, 0.2817188, 0.6299787]]
_OKLAB = [[0.2104543, 0.7936178, -0.0040720], [1.9779985, -2.4285922, 0.4505937], [0.0259040, 0.7827718, -0.8086758]]

_MARGIN, _LINE, _SWATCH = 14, 20, 14


@cache
def default_palette() -> tuple[Colour, ...]:
    """Returns 256 colours that stay apart, with and without red-green blindness.

    The first is black, as backgrounds are; seven are those of Okabe and Ito (2008). Each of the others is, of a grid,
    the one farthest from all before it, from grey and from white, where the distance of two colours is the smallest of
    those that people with and without red-green blindness see.
    """
    levels = np.linspace(0, 255, 8).round().astype(int)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    seen = _seen(grid)

    def distances(colour: Colour) -> NDArray[np.float64]:
        nearest: NDArray[np.float64] = np.linalg.norm(seen - _seen(np.array([colour])), axis=-1).min(axis=1)
        return nearest

    colours: list[Colour] = [(0, 0, 0), *_OKABE_ITO]
    nearest = np.min([distances(colour) for colour in [*colours, _GREY, _WHITE]], axis=0)
    while len(colours) < 256:
        red, green, blue = grid[nearest.argmax()].tolist()
        colours.append((red, green, blue))
        nearest = np.minimum(nearest, distances(colours[-1]))
    return tuple(colours)


def class_colours(palette: Sequence[Sequence[int]] | None, count: int) -> list[Colour]:
    """Returns a colour for each of `count` classes: the first ones of a palette, or of the default one.

    Raises:
        ValueError: If the palette has fewer colours, or something else than red, green and blue in 0..255.
    """
    colours = default_palette() if palette is None else palette
    for colour in colours:
        if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
            raise ValueError(f"Expected `palette` to have red, green and blue in 0..255, but got {[*colour]}")
    if len(colours) < count:
        got = f"the default one has {len(colours)}" if palette is None else f"got {len(colours)}"
        raise ValueError(f"Expected `palette` to have {count} colours, one a class, but {got}")
    return [(colour[0], colour[1], colour[2]) for colour in colours[:count]]


def to_pixels(image: Tensor) -> Pixels:
    """Turns an image in 0..1, `(c, h, w)`, into red, green and blue bytes `(h, w, 3)`.

    One or two channels are shown as grey, four over white by the last, of others the first three.
    """
    image = image.float().nan_to_num(0).clamp(0, 1)
    if len(image) == 4:
        image = image[:3] * image[3:] + 1 - image[3:]
    image = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    pixels: Pixels = (image * 255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()
    return pixels


def hatch(pixels: Pixels, where: NDArray[np.bool_]) -> Pixels:
    """Covers a part of a picture with grey stripes."""
    rows, columns = np.indices(where.shape)
    stripes = np.where((rows + columns) // 4 % 2, 96, 176)[..., None]
    covered: Pixels = np.where(where[..., None], pixels // 4 + stripes // 4 * 3, pixels).astype(np.uint8)
    return covered


@dataclass(frozen=True)
class Row:
    """Pictures side by side with a line below each, and what a legend must explain of them.

    The legend has a place in the order, a name and a colour for each entry; None is hatched.
    """

    pictures: list[Pixels]
    captions: list[str]
    legend: frozenset[tuple[int, str, Colour | None]] = frozenset()


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
    for left, down, name, colour in entries:
        swatch = np.full((_SWATCH, _SWATCH, 3), colour or _WHITE, np.uint8)
        if colour is None:
            swatch = hatch(swatch, np.ones((_SWATCH, _SWATCH), bool))
        sheet.paste(Image.fromarray(swatch), (left, top + down))
        pen.rectangle((left, top + down, left + _SWATCH - 1, top + down + _SWATCH - 1), outline="gray")
        pen.text((left + _SWATCH + 5, top + down - 1), name, "black", font)
    return sheet


def save_picture(picture: Image.Image, path: Path) -> None:
    """Writes a png file, which appears whole or not at all, and the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    picture.save(partial, format="PNG")
    os.replace(partial, path)


def _seen(colours: NDArray[np.int64]) -> NDArray[np.float64]:
    """Colours `(n, 3)` in Oklab, as three kinds of eyes see them, `(n, 3, 3)`."""
    share = colours / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    views = [linear @ np.array(matrix).T for matrix in (np.eye(3), _DEUTERANOPIA, _PROTANOPIA)]
    cones = np.stack(views, axis=1).clip(0, 1) @ np.array(_CONES).T
    seen: NDArray[np.float64] = np.cbrt(cones) @ np.array(_OKLAB).T
    return seen


def _place_legend(
    entries: Sequence[tuple[int, str, Colour | None]], font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> list[tuple[int, int, str, Colour | None]]:
    """Returns left and top of each entry, in lines that are not wider than the sheet."""
    placed, left, top = [], _MARGIN, 0
    for _, name, colour in entries:
        name = _shorten(name, font, width - 2 * _MARGIN - _SWATCH - 5)
        need = _SWATCH + 5 + int(font.getlength(name))
        if left > _MARGIN and left + need > width - _MARGIN:
            left, top = _MARGIN, top + _LINE
        placed.append((left, top, name, colour))
        left += need + _MARGIN
    return placed


def _shorten(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: int) -> str:
    """Leaves out the beginning of a text, as files are told apart by their ends, until it fits."""
    start = 0
    while start < len(text) and font.getlength(text if start == 0 else f"…{text[start:]}") > room:
        start += 1
    return text if start == 0 else f"…{text[start:]}"
