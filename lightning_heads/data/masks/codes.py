"""Conversion of masks from stored values or colors to class indices."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...utils.plain import plain_values
from .reading import MaskReadError, Values, pack, read_mask

Code = int | Sequence[int]
Codes = Mapping[str, Code] | Sequence[str] | int

_LOSSY = (".jpg", ".jpeg", ".jfif", ".jpe")
_VOID = -1


class MaskCodes:
    """Reads masks as class indices.

    Args:
        codes: The classes: their names, or how many there are, if masks contain class indices; or a mapping from each
            name to its value, or to its color `[red, green, blue]`. With `multilabel`, masks contain 0 and either 1 or
            255, or 0 (black) and the value or color that is given.
        ignore: Values or colors of pixels whose class is unknown.
        multilabel: Whether an image has one mask per class, in the order of `codes`, and a pixel any number of classes.

    Raises:
        TypeError: If `codes` is a string.
        ValueError: If there are too few classes, or codes are out of range, mix values and colors, or are repeated.
    """

    def __init__(self, codes: Codes, ignore: Sequence[Code] = (), multilabel: bool = False) -> None:
        if isinstance(codes, str):
            raise TypeError(f"Expected `codes` to be a list or mapping of classes, but got the string {codes!r}")
        codes, ignore = plain_values(codes), plain_values(ignore)
        if isinstance(codes, int):
            codes = [str(i) for i in range(codes)]
        self.class_names = [str(name) for name in codes]
        self.ignore, self.multilabel = [*ignore], multilabel
        if len(self.class_names) < (1 if multilabel else 2):
            raise ValueError(f"Expected `codes` to have two classes or more, but got {self.class_names}")
        if len(set(self.class_names)) < len(self.class_names):
            raise ValueError(f"Expected `codes` to name each class once, but got {self.class_names}")
        given = [*codes.values()] if isinstance(codes, Mapping) else None
        if not multilabel:
            self._tables = [
                _LookupTable([*enumerate(range(len(self.class_names)) if given is None else given)], ignore)
            ]
        elif given is None:
            self._tables = [_LookupTable([(0, 0), (1, 1), (1, 255)], ignore)] * len(self.class_names)
        else:
            black = [0 if isinstance(code, int) else (0, 0, 0) for code in given]
            self._tables = [_LookupTable([(0, no), (1, yes)], ignore) for no, yes in zip(black, given, strict=True)]

    def read(self, paths: Sequence[Path], max_pixels: int | None = None) -> Tensor:
        """Reads the mask of an image, or its masks of all classes, as integers `(k + 1, h, w)`.

        The first k channels are the class index (k = 1), or with `multilabel` 0 or 1 for each class. The last channel
        is 1 where the class is known and 0 where the pixel is ignored.

        Args:
            paths: The files.
            max_pixels: Largest number of pixels; see `read_mask`.

        Raises:
            MaskReadError: If a mask cannot be read, has a value that is not a class, or differs in size from the first.
        """
        classes = []
        for path, table in zip(paths, self._tables, strict=True):
            classes.append(table.read(path, max_pixels))
            if classes[-1].shape != classes[0].shape:
                sizes = " and ".join(f"{h}x{w}" for h, w in (classes[-1].shape, classes[0].shape))
                raise MaskReadError(path, f"its height and width differ from those of {paths[0]}: {sizes}")
        stacked = np.stack([*classes, np.ones_like(classes[0])])
        if stacked.min() == _VOID:
            stacked[-1] = (stacked[:-1] != _VOID).all(axis=0)
            stacked[stacked == _VOID] = 0
        fits_uint8 = len(self.class_names) <= 256
        return torch.from_numpy(stacked.astype(np.uint8) if fits_uint8 else stacked)


class _LookupTable:
    """Lookup table from values, or colors packed into one integer each, to classes."""

    def __init__(self, classes: Sequence[tuple[int, Code]], ignore: Sequence[Code]) -> None:
        entries = [*classes, *((_VOID, code) for code in ignore)]
        codes = [_to_int_or_tuple(code) for _, code in entries]
        self.colors = not isinstance(codes[0], int)
        for code in codes:
            self._check(code)
        if repeated := [code for code in dict.fromkeys(codes) if codes.count(code) > 1]:
            raise ValueError(f"Expected `codes` and `ignore` to have each code once, but {repeated[0]} is there twice")
        self.codes = codes
        keys = pack(np.array(codes)) if self.colors else np.array(codes)
        # 0 marks unknown values, as zeros take no memory until they are read; the last entry is for all larger values
        self.table = np.zeros(int(keys.max()) + 2, np.int16)
        self.table[keys] = [index + 1 if index != _VOID else _VOID for index, _ in entries]

    def read(self, path: Path, max_pixels: int | None) -> Values:
        """Returns the class of each pixel `(h, w)`, -1 where it is ignored."""
        values = read_mask(path, self.colors, max_pixels)
        found = self.table.take(pack(values) if self.colors else values, mode="clip")
        if not found.all():
            raise MaskReadError(path, self._describe(path, values, found == 0))
        found -= found > 0
        return found

    def _check(self, code: int | tuple[int, ...]) -> None:
        numbers = [code] if isinstance(code, int) else code
        if isinstance(code, int) == self.colors:
            raise ValueError(f"Expected `codes` and `ignore` to be all numbers or all colors, but got {code} too")
        largest, count = (255, 3) if self.colors else (65535, 1)
        if len(numbers) != count or not all(0 <= number <= largest for number in numbers):
            kind = "a color of three numbers" if self.colors else "a number"
            raise ValueError(f"Expected each code to be {kind} in 0..{largest}, but got {code}")

    def _describe(self, path: Path, values: Values, unknown: Values) -> str:
        """Returns the reason of an error for the first pixel whose value is not a class."""
        row, column = np.argwhere(unknown)[0].tolist()
        value = values[row, column]
        same = (values == value).all(axis=-1) if self.colors else values == value
        known = f"{', '.join(map(str, self.codes[:8]))}{', ...' if len(self.codes) > 8 else ''}"
        lossy = "; JPEG changes values, PNG keeps them" if path.suffix.lower() in _LOSSY else ""
        return (
            f"its {'color' if self.colors else 'value'} {value.tolist()} is not a class: {same.sum()} pixels have it, "
            f"the first at row {row}, column {column}; `codes` and `ignore` have {known}{lossy}"
        )


def _to_int_or_tuple(code: Code) -> int | tuple[int, ...]:
    if isinstance(code, (int, np.integer)):
        return int(code)
    if isinstance(code, (str, float)):
        raise ValueError(f"Expected each code to be a number or a color, as in {{'sky': 1}}, but got {code!r}")
    return tuple(int(number) for number in code)
