"""Class colors that remain distinguishable under color vision deficiency."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

Color = tuple[int, int, int]
_OKABE_ITO = [
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
]
_GRAY, _WHITE = (128, 128, 128), (255, 255, 255)
# Simulate the lack of the cones for green and for red, on linear RGB (Machado et al. 2009).
_DEUTERANOPIA = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
_PROTANOPIA = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
# Linear RGB to cone responses, and their cube roots to Oklab, where distances are perceptual (Ottosson 2020).
_CONES = [[0.4122215, 0.5363325, 0.0514460], [0.2119035, 0.6806995, 0.1073970], [0.0883025, 0.2817188, 0.6299787]]
_OKLAB = [[0.2104543, 0.7936178, -0.0040720], [1.9779985, -2.4285922, 0.4505937], [0.0259040, 0.7827718, -0.8086758]]


@cache
def default_palette() -> tuple[Color, ...]:
    """Returns 256 colors that are distinguishable with and without red-green color blindness.

    The first is black, for the background; the next seven are those of Okabe and Ito (2008). Each further color is that
    of an 8x8x8 RGB grid with the largest distance to the nearest of all colors before it, gray and white. The distance
    of two colors is the smallest of those in Oklab under normal vision, deuteranopia and protanopia.
    """
    levels = np.linspace(0, 255, 8).round().astype(int)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    oklab = _to_oklab(grid)

    def distances(color: Color) -> NDArray[np.float64]:
        least: NDArray[np.float64] = np.linalg.norm(oklab - _to_oklab(np.array([color])), axis=-1).min(axis=1)
        return least

    colors: list[Color] = [(0, 0, 0), *_OKABE_ITO]
    nearest = np.min([distances(color) for color in [*colors, _GRAY, _WHITE]], axis=0)
    while len(colors) < 256:
        red, green, blue = grid[nearest.argmax()].tolist()
        colors.append((red, green, blue))
        nearest = np.minimum(nearest, distances(colors[-1]))
    return tuple(colors)


def class_colors(palette: Sequence[Sequence[int]] | None, count: int) -> list[Color]:
    """Returns a color for each of `count` classes: the first `count` of a palette, or of the default one.

    Raises:
        ValueError: If the palette has fewer colors, or a color is not red, green and blue in 0..255.
    """
    colors = default_palette() if palette is None else palette
    for color in colors:
        if len(color) != 3 or not all(0 <= value <= 255 for value in color):
            raise ValueError(f"Expected `palette` to have red, green and blue in 0..255, but got {[*color]}")
    if len(colors) < count:
        got = f"the default one has {len(colors)}" if palette is None else f"got {len(colors)}"
        raise ValueError(f"Expected `palette` to have {count} colors, one a class, but {got}")
    return [(color[0], color[1], color[2]) for color in colors[:count]]


def _to_oklab(colors: NDArray[np.int64]) -> NDArray[np.float64]:
    """Converts sRGB colors `(n, 3)` in 0..255 to Oklab `(n, 3, 3)`: normal vision, deuteranopia and protanopia."""
    scaled = colors / 255
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    views = [linear @ np.array(matrix).T for matrix in (np.eye(3), _DEUTERANOPIA, _PROTANOPIA)]
    cones = np.stack(views, axis=1).clip(0, 1) @ np.array(_CONES).T
    oklab: NDArray[np.float64] = np.cbrt(cones) @ np.array(_OKLAB).T
    return oklab
