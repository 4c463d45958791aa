"""Conversion of decoded pixels to 8 bits, by one range of values for all files."""

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from .opening import ImageReadError

Values = npt.NDArray[Any]
ValueRange = tuple[float, float]

_UINT32 = 2**32 - 1
_OUTSIDE = 0.5  # by how much floats may exceed 0..1, and are clipped then


class Depth(NamedTuple):
    """Largest integer that a file can store in a channel, and the value that Pillow decodes it as."""

    stored: int
    decoded: int

    @property
    def is_lossy(self) -> bool:
        """Whether Pillow decodes fewer bits than the file has."""
        return self.stored > self.decoded

    def restore(self, values: Values) -> Values:
        """Returns the stored integers, from decoded ones."""
        if self.stored == self.decoded:
            return values
        return np.rint(values * (self.stored / self.decoded)).astype(values.dtype)


def depth_of(file: ImageFile.ImageFile) -> Depth:
    """Returns the depth of an opened file, which is not known any more once it is decoded.

    Pillow scales the gray values of PNG and TIFF with 2 and 4 bits, and those of PNM whose largest value is not 255.
    """
    decoded = 65535 if file.mode.startswith("I") else 255
    for codec, _, _, args in file.tile:
        if codec.startswith("ppm") and isinstance(args, tuple):
            return Depth(args[1], decoded)
    stored_as = str([args for *_, args in file.tile])
    if bits := re.search(r"\bL;([24])", stored_as):
        return Depth(2 ** int(bits[1]) - 1, decoded)
    for mode, largest in (("I;12", 4095), ("I;32N", _UINT32)):
        if mode in stored_as:
            return Depth(largest, largest)
    return Depth(65535 if re.search(";16[BLN]", stored_as) else decoded, decoded)


def check_value_range(value_range: ValueRange | None) -> ValueRange | None:
    """Returns a range of values as Python's own numbers, or None if it is None.

    Raises:
        ValueError: If it is not two finite numbers in ascending order.
    """
    if value_range is None:
        return None
    numbers = [float(value) for value in value_range]
    if len(numbers) != 2 or not -math.inf < numbers[0] < numbers[1] < math.inf:
        raise ValueError(f"Expected `value_range` to be two numbers in ascending order, but got {value_range}")
    return numbers[0], numbers[1]


def to_uint8(path: Path, file: ImageFile.ImageFile, depth: Depth, value_range: ValueRange | None) -> Image.Image:
    """Converts a decoded image to 8 bits per channel.

    Args:
        path: The file, for errors.
        file: The image.
        depth: Its depth before it was decoded.
        value_range: Stored values that become 0 and 255; None for the range of the data type.

    Raises:
        ImageReadError: If pixels are not finite, or the data type has no range and none is given.
    """
    if value_range is not None and depth.is_lossy:
        raise ImageReadError(path, "it has 16 bits per channel, of which only 8 would be read; save it as grayscale")
    if file.mode.startswith("I") or file.mode == "F":
        values = _integers_or_floats(path, file, depth)
        return Image.fromarray(_scale(values, value_range or _default_range(path, file, depth, values)))
    if value_range is None:
        return file
    # a palette or CMYK has no values to scale before it is converted
    mode = "RGBA" if file.has_transparency_data else "L" if file.mode in ("1", "L") else "RGB"
    table = _scale(depth.restore(np.arange(256)), value_range).tolist()
    image = file.convert(mode)
    return image.point([*table * (1 if mode == "L" else 3), *(range(256) if mode == "RGBA" else ())])


def _integers_or_floats(path: Path, file: ImageFile.ImageFile, depth: Depth) -> Values:
    values = depth.restore(np.asarray(file))
    if depth.stored == _UINT32:
        return values.view(np.uint32)  # Pillow takes them for signed ones
    if file.mode == "F" and (bad := np.count_nonzero(~np.isfinite(values))):
        raise ImageReadError(path, f"{bad} of its pixels are NaN or infinite")
    return values


def _default_range(path: Path, file: ImageFile.ImageFile, depth: Depth, values: Values) -> ValueRange:
    advice = "set `value_range` to the values that are black and white, such as (0, 4095) for 12 bits"
    if file.mode == "I" and file.format != "PPM":
        raise ImageReadError(path, f"it has 32-bit or signed integers, which have no common range; {advice}")
    if file.mode != "F":
        return 0, depth.stored
    low, high = values.min(), values.max()
    if low < -_OUTSIDE or high > 1 + _OUTSIDE:
        raise ImageReadError(path, f"its floats are from {low:g} to {high:g} instead of 0 to 1; {advice}")
    return 0, 1


def _scale(values: Values, value_range: ValueRange) -> Values:
    low, high = value_range
    scaled: Values = (values.astype(np.float64) - low) * (255 / (high - low))
    levels: Values = scaled.round().clip(0, 255).astype(np.uint8)
    return levels
