"""Opens image files, whatever their EXIF, and names those that cannot be used."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

HEIF_EXTENSIONS = {".heic", ".heif", ".hif"}
HAS_HEIF = find_spec("pillow_heif") is not None

# Transpositions that turn an image upright, by its EXIF orientation; from 5 on, they swap height and width.
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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


@contextmanager
def open_image(
    path: Path, max_pixels: int | None = None, error: type[ImageReadError] = ImageReadError
) -> Iterator[ImageFile.ImageFile]:
    """Opens an image file without decoding it, and raises all errors of the block as errors that name the file.

    Args:
        path: The file.
        max_pixels: Largest number of pixels; see `read_image`.
        error: Class of the errors.
    """
    try:
        if path.stat().st_size == 0:
            raise error(path, "the file is empty")
        raise_pixel_limit(max_pixels)
        # of a path, Pillow maps uncompressed files to memory, and then mixes up the rows of TIFFs that it has to turn
        with path.open("rb") as stream, _open(stream) as file:
            if max_pixels is not None and file.width * file.height > max_pixels:
                raise error(path, f"it is {file.width}x{file.height} pixels, more than `max_pixels` of {max_pixels:,}")
            yield file
    except ImageReadError:
        raise
    except Exception as cause:  # decoders raise errors of many types for broken files
        raise error(path, _reason(path, cause)) from cause


def orientation(file: ImageFile.ImageFile) -> int:
    """Returns the EXIF orientation to turn an opened image by after decoding, 1 to 8; 1 if its EXIF is broken."""
    if file.format == "PNG":
        file.load()  # EXIF may follow the pixels
    try:
        found = file.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow raises errors of many types for broken EXIF, which does not change the pixels
        found = 1
    if file.format != "TIFF":
        return found if found in TRANSPOSITIONS else 1
    exif = file.getexif()  # not parsed again
    for tag in {ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop} & {*exif}:
        del exif[tag]  # Pillow parses what these refer to after decoding, and would raise an error if it is broken
    return 1  # Pillow turns the image as it decodes it


def upright_size(path: Path) -> tuple[int, int]:
    """Returns height and width of an image turned upright by its EXIF orientation; decodes only a PNG.

    Raises:
        ImageReadError: If the file is missing or not an image.
    """
    with open_image(path) as file:
        width, height = file.size
        return (width, height) if orientation(file) >= 5 else (height, width)


def raise_pixel_limit(max_pixels: int | None) -> None:
    """Raises Pillow's limit of pixels to `max_pixels` if it is lower, for this process; None keeps it."""
    limit = Image.MAX_IMAGE_PIXELS
    if max_pixels is not None and limit is not None:
        Image.MAX_IMAGE_PIXELS = max(limit, max_pixels)


def _open(stream: BinaryIO) -> ImageFile.ImageFile:
    try:
        return Image.open(stream)
    except UnidentifiedImageError:
        if not HAS_HEIF:
            raise
        from pillow_heif import register_heif_opener

        register_heif_opener()
        stream.seek(0)
        return Image.open(stream)
    except ValueError as error:
        if "Exif" not in str(error):
            raise
        # the AVIF decoder refuses a file with broken EXIF: under another type that item is not read
        stream.seek(0)
        return Image.open(io.BytesIO(stream.read().replace(b"Exif", b"skip", 1)))


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, Image.DecompressionBombError):
        return f"{error} If the file is to be trusted, set `max_pixels` to its number of pixels or more"
    if path.suffix.lower() in HEIF_EXTENSIONS and not HAS_HEIF:
        return "Pillow reads HEIC only with the package `pillow-heif`, which is not installed"
    return f"reading it failed: {error}"
