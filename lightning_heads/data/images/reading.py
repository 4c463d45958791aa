"""Reads image files of any mode, and finds those that cannot be read."""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from tqdm import tqdm

from ...utils.arguments import Unpack
from ..samples.folders import files_below, nfc
from .opening import HAS_HEIF, HEIF_EXTENSIONS, TRANSPOSITIONS, ImageReadError, open_image, orientation
from .pixels import check_value_range, depth_of, to_uint8

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
EXTENSIONS |= HEIF_EXTENSIONS if HAS_HEIF else set()

# Images that are reported: phones' and cameras' formats, and others that Pillow cannot decode.
_NOT_READ = HEIF_EXTENSIONS | {".jxl", ".dng", ".arw", ".cr2", ".cr3", ".nef", ".orf", ".pef", ".raf", ".rw2", ".srw"}
_NOT_READ |= {".dcm", ".exr", ".hdr", ".psd", ".svg"}

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_MIN_SIDE = 2
_MAX_ASPECT = 100
# A JPEG that is decoded at a fraction of its size is at least this much larger than the size asked for, so that pixels
# differ by less than 2 of 255 on average from those of full decoding.
_MARGIN = 1.25


class ReadingArgs(TypedDict, total=False):
    """Arguments of `read_image` that data sets pass on to it."""

    channels: int
    value_range: tuple[float, float] | None
    max_pixels: int | None


def read_image(
    path: str | Path,
    channels: int = 3,
    *,
    value_range: tuple[float, float] | None = None,
    max_pixels: int | None = None,
    size: Callable[[int, int], tuple[int, int]] | None = None,
) -> Tensor:
    """Reads an image as uint8 `(channels, h, w)`, turned upright by its EXIF orientation.

    Palettes and CMYK are converted, and transparent images are composited over white unless `channels` is 4.

    Args:
        path: The file.
        channels: 1 for grayscale, 3 for RGB, 4 for RGBA.
        value_range: Stored pixel values that become 0 and 255; values outside are clipped. By default the range of the
            file's data type: 0 to 255, for 16 bits 0 to 65535, for floats 0 to 1.
        max_pixels: Largest number of pixels of an image; by default Pillow's limit, 178,956,970. A larger number also
            raises Pillow's limit for the process.
        size: Function from height and width of the image to those to resize it to, such as `ResizeTo.scaled_size`. A
            JPEG is decoded at 1/2, 1/4 or 1/8 of its size if that is at least 1.25 times the one to resize to.

    Raises:
        ImageReadError: If the file is missing, empty, truncated or not an image, has a side of one pixel, one side is
            more than 100 times the other, it has too many pixels or some that are not finite, or its data type has no
            range and `value_range` is None.
        ValueError: If `channels` is not 1, 3 or 4, or `value_range` is not in ascending order.
    """
    return read_image_and_size(path, channels, value_range=value_range, max_pixels=max_pixels, size=size)[0]


def read_image_and_size(
    path: str | Path,
    channels: int = 3,
    *,
    value_range: tuple[float, float] | None = None,
    max_pixels: int | None = None,
    size: Callable[[int, int], tuple[int, int]] | None = None,
) -> tuple[Tensor, tuple[int, int]]:
    """Returns an image as `read_image` does, and the height and width that it had before it was resized."""
    path = Path(path)
    if channels not in _MODES:
        raise ValueError(f"Expected `channels` to be 1, 3 or 4, but got {channels}")
    value_range = check_value_range(value_range)
    with open_image(path, max_pixels) as file:
        _check_size(path, *file.size)
        depth, turn = depth_of(file), orientation(file)
        upright = file.size if turn >= 5 else (file.height, file.width)
        scaled = upright if size is None else size(*upright)
        if size is not None:
            rows, columns = reversed(scaled) if turn >= 5 else scaled
            file.draft(None, (math.ceil(columns * _MARGIN), math.ceil(rows * _MARGIN)))  # of a JPEG alone
        file.load()
        image = _to_mode(to_uint8(path, file, depth, value_range), channels)
        if turn in TRANSPOSITIONS:
            image = image.transpose(TRANSPOSITIONS[turn])
        array = np.array(image)
    pixels = torch.from_numpy(array if array.ndim == 3 else array[..., None]).permute(2, 0, 1)
    resized: Tensor = v2.functional.resize(pixels, [*scaled], antialias=True)  # fastest before it is made contiguous
    return resized.contiguous(), upright


def find_images(root: Path) -> list[Path]:
    """Returns the files below a folder with the extension of an image, sorted; see `files_below`."""
    return sorted(path for path in files_below(root) if path.suffix.lower() in EXTENSIONS)


def warn_left_out(root: Path) -> None:
    """Warns of image files below a folder whose format is not read, and counts them by extension."""
    counts = Counter(path.suffix.lower() for path in files_below(root))
    left_out = {extension: counts[extension] for extension in sorted(_NOT_READ - EXTENSIONS) if counts[extension]}
    if not left_out:
        return
    listed = ", ".join(f"{count} {extension}" for extension, count in left_out.items())
    text = f"Files in {root} are left out, as Pillow does not read them: {listed}{heif_advice(left_out)}"
    warnings.warn(text, stacklevel=3)


def heif_advice(extensions: Iterable[str]) -> str:
    """Returns a hint at `pillow-heif` to end a text with, if HEIC is among extensions and is not read."""
    return "; install `pillow-heif` to read HEIC" if (HEIF_EXTENSIONS - EXTENSIONS) & {*extensions} else ""


def images_by_name(folder: Path) -> dict[Path, Path]:
    """Returns the images below a folder by their path relative to it, without the suffix and in NFC; see `image_name`.

    Raises:
        ValueError: If two images have the same path without suffix.
    """
    found: dict[Path, Path] = {}
    for path in find_images(folder):
        name = image_name(path, folder)
        if name in found:
            raise ValueError(f"Expected one image {name} in {folder}, but got {found[name].name} and {path.name}")
        found[name] = path
    return found


def image_name(path: Path, folder: Path) -> Path:
    """Returns the path of an image relative to a folder, without the suffix and in Unicode's composed form (NFC)."""
    return Path(nfc(str(path.relative_to(folder).with_suffix(""))))


def verify_images(
    paths: Sequence[Path], num_workers: int = 2, progress: bool = True, **reading: Unpack[ReadingArgs]
) -> list[ImageReadError]:
    """Decodes every file and returns an error for each that cannot be read, in order.

    Args:
        paths: The files.
        num_workers: Number of files that are decoded at a time.
        progress: Whether to show a progress bar.
        **reading: Arguments of `read_image`.
    """
    return [*verify(len(paths), lambda index: read_image(paths[index], **reading), num_workers, progress).values()]


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
    if image.has_transparency_data and channels != 4:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    mode = _MODES[channels]
    return image if image.mode == mode else image.convert(mode)
