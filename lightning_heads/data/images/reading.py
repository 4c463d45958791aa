"""Reads image files of any mode, and finds those that cannot be read."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

# Raster images only, since Pillow also registers formats that it can identify but not decode.
EXTENSIONS = {
    ".avif",
    ".bmp",
    ".gif",
    ".jfif",
    ".jp2",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".png",
    ".tga",
    ".tif",
    ".tiff",
    ".webp",
}
EXTENSIONS |= {".pbm", ".pgm", ".pnm", ".ppm"}

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_MIN_SIDE = 2
_MAX_ASPECT = 100


class ImageReadError(ValueError):
    """An image file that cannot be used, with its path and the reason."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return (
            f"Expected {self.path} to be an image, but {self.reason}; the data modules leave such files out with "
            "on_error='skip'"
        )


def read_image(path: str | Path, channels: int = 3) -> Tensor:
    """Reads an image as uint8 `(channels, h, w)`, turned upright by its EXIF orientation.

    16-bit grayscale is scaled to 8 bits, palettes and CMYK are converted, and transparent images are composited over
    white unless `channels` is 4.

    Args:
        path: The file.
        channels: 1 for grayscale, 3 for RGB, 4 for RGBA.

    Raises:
        ImageReadError: If the file is missing, empty, truncated or not an image, has a side of one pixel, or one side
            is more than 100 times the other.
        ValueError: If `channels` is not 1, 3 or 4.
    """
    path = Path(path)
    if channels not in _MODES:
        raise ValueError(f"Expected `channels` to be 1, 3 or 4, but got {channels}")
    try:
        if path.stat().st_size == 0:
            raise ImageReadError(path, "the file is empty")
        with Image.open(path) as file:
            _check_size(path, *file.size)
            image = _to_mode(ImageOps.exif_transpose(file), channels)
    except ImageReadError:
        raise
    except Exception as error:  # decoders raise errors of many types for broken files
        reason = "there is no such file" if isinstance(error, FileNotFoundError) else f"reading it failed: {error}"
        raise ImageReadError(path, reason) from error
    array = np.array(image)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def find_images(root: Path) -> list[Path]:
    """Returns the files below a folder with the extension of an image, sorted; follows links, omits hidden files."""
    found: list[Path] = []
    visited: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in visited:  # a link to a folder that was visited
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [Path(folder, name) for name in files if not name.startswith(".")]
    return sorted(path for path in found if path.suffix.lower() in EXTENSIONS)


def images_by_name(folder: Path) -> dict[Path, Path]:
    """Returns the images below a folder by their path relative to it, without the suffix.

    Raises:
        ValueError: If two images have the same path without suffix.
    """
    found: dict[Path, Path] = {}
    for path in find_images(folder):
        name = path.relative_to(folder).with_suffix("")
        if name in found:
            raise ValueError(f"Expected one image {name} in {folder}, but got {found[name].name} and {path.name}")
        found[name] = path
    return found


def verify_images(paths: Sequence[Path], num_workers: int = 2, progress: bool = True) -> list[ImageReadError]:
    """Decodes every file and returns an error for each that cannot be read, in order."""
    return [*verify(len(paths), lambda index: read_image(paths[index]), num_workers, progress).values()]


def verify(
    count: int, read: Callable[[int], object], num_workers: int = 2, progress: bool = True
) -> dict[int, ImageReadError]:
    """Calls `read` with every index below `count` and returns the error of each that cannot be read, in order."""

    def check(index: int) -> ImageReadError | None:
        try:
            read(index)
        except ImageReadError as error:
            return error
        return None

    with ThreadPoolExecutor(max(num_workers, 1)) as pool:
        found = tqdm(pool.map(check, range(count)), "checking images", count, unit="image", disable=not progress)
        return {index: error for index, error in enumerate(found) if error is not None}


def _check_size(path: Path, width: int, height: int) -> None:
    short, long = sorted((width, height))
    if short < _MIN_SIDE:
        raise ImageReadError(path, f"it is {width}x{height} pixels, where both sides must have {_MIN_SIDE} or more")
    if long > _MAX_ASPECT * short:
        raise ImageReadError(path, f"it is {width}x{height} pixels, more than {_MAX_ASPECT} times as long as wide")


def _to_mode(image: Image.Image, channels: int) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    elif image.mode == "F":
        values = np.asarray(image)
        scale = 255 if values.max() <= 1 else 1
        image = Image.fromarray((values * scale).clip(0, 255).round().astype(np.uint8))
    if image.has_transparency_data and channels != 4:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert(_MODES[channels])
