"""Reads segmentation masks of any mode, without changing their values."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from ..images.opening import TRANSPOSITIONS, ImageReadError, open_image, orientation
from ..images.pixels import depth_of
from ..images.reading import find_images

Values = npt.NDArray[Any]


class MaskReadError(ImageReadError):
    """A mask that cannot be used, with its path and the reason."""

    def __str__(self) -> str:
        return (
            f"Expected {self.path} to be a mask, but {self.reason}; the data modules leave such pairs out with "
            "on_error='skip'"
        )


def read_mask(path: str | Path, colors: bool = False, max_pixels: int | None = None) -> Values:
    """Reads the values of a mask as they are stored, as integers `(h, w)`, or as colors `(h, w, 3)`.

    A palette image is read as palette indices, a 1-bit image as 0 and 1, 2, 4 and 16 bits are not scaled. Without
    `colors`, an RGB image must be gray, as drawing programs save such masks. Transparency is ignored, and the mask is
    turned upright by its EXIF orientation.

    Args:
        path: The file.
        colors: Whether to read RGB colors, of a palette image those of the palette.
        max_pixels: Largest number of pixels of a mask; by default Pillow's limit, 178,956,970. A larger number also
            raises Pillow's limit for the process.

    Raises:
        MaskReadError: If the file is missing, empty or not an image, has colors although `colors` is false, has more
            than 8 bits although it is true, has several channels of 16 bits, has too many pixels, or has negative or
            fractional numbers.
    """
    path = Path(path)
    with open_image(path, max_pixels, MaskReadError) as file:
        depth, turn = depth_of(file), orientation(file)
        if depth.is_lossy:
            raise MaskReadError(
                path, "it has 16 bits per channel, of which only 8 would be read; save it as grayscale, or with 8 bits"
            )
        exceeds_8_bits = file.mode.startswith("I") or file.mode == "F"
        if colors and exceeds_8_bits:
            raise MaskReadError(path, "it has numbers of more than 8 bits, where its classes are given as colors")
        image = file if turn not in TRANSPOSITIONS else file.transpose(TRANSPOSITIONS[turn])
        if colors or (image.mode not in ("1", "L", "LA", "P", "PA") and not exceeds_8_bits):
            image = image.convert("RGB")
        values = np.array(image)
    if colors:
        return values
    values = depth.restore(values)
    if image.mode == "RGB":
        return _gray(path, values)
    if exceeds_8_bits:
        return _integers(path, values)
    return values[..., 0] if values.ndim == 3 else values.astype(np.uint8)


def mask_values(
    paths: str | Path | Sequence[str | Path],
    *,
    colors: bool = False,
    num_workers: int = 2,
    progress: bool = True,
    max_pixels: int | None = None,
) -> dict[int, int] | dict[tuple[int, int, int], int]:
    """Counts the pixels of each value, or of each color, in masks: the values to list in `codes` of a data module.

    Args:
        paths: The files, or a folder that is searched recursively.
        colors: Whether to count colors `(r, g, b)`, of a palette image those of the palette.
        num_workers: Number of files that are read at a time.
        progress: Whether to show a progress bar.
        max_pixels: Largest number of pixels of a mask; see `read_mask`.

    Raises:
        MaskReadError: If a mask cannot be read.
        ValueError: If there are no files.
    """
    files = find_images(Path(paths)) if isinstance(paths, (str, Path)) else [Path(path) for path in paths]
    if not files:
        raise ValueError(f"Expected masks in `paths`, but there are none in {paths}")

    def count(path: Path) -> tuple[Values, Values]:
        values = read_mask(path, colors, max_pixels)
        return np.unique(pack(values) if colors else values, return_counts=True)

    totals: dict[int, int] = {}
    with ThreadPoolExecutor(max(num_workers, 1)) as pool:
        found = tqdm(pool.map(count, files), "reading masks", len(files), unit="mask", disable=not progress)
        for values, counts in found:
            for value, n in zip(values.tolist(), counts.tolist(), strict=True):
                totals[value] = totals.get(value, 0) + n
    if colors:
        return {(value >> 16, value >> 8 & 255, value & 255): totals[value] for value in sorted(totals)}
    return {value: totals[value] for value in sorted(totals)}


def pack(colors: Values) -> Values:
    """Packs colors `(..., 3)` into one integer each, which sort as the colors do."""
    red, green, blue = (colors[..., i].astype(np.int32) for i in range(3))
    packed: Values = red << 16 | green << 8 | blue
    return packed


def _gray(path: Path, values: Values) -> Values:
    colored = (values != values[..., :1]).any(axis=-1)
    if colored.any():
        color = values[colored][0].tolist()
        raise MaskReadError(path, f"it has colors such as {color}, where its classes are given as numbers")
    gray: Values = values[..., 0]
    return gray


def _integers(path: Path, values: Values) -> Values:
    bad = (values < 0) | (values != np.round(values)) | ~np.isfinite(values)
    if bad.any():
        raise MaskReadError(path, f"it holds {values[bad][0]}, where numbers of at least 0 are expected")
    return values.astype(np.int64) if values.dtype.kind == "f" else values
