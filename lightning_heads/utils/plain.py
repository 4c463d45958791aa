"""Conversion of values, such as NumPy's, to Python's own types."""

import operator
from collections.abc import Mapping, Sequence, Set
from pathlib import PurePath
from typing import Any

from torch import Tensor


def plain_values(value: Any) -> Any:
    """Converts numbers, strings and arrays of NumPy, paths, and containers of such values to Python's own types.

    Checkpoints of the result load with `weights_only=True`. Mappings become dicts, sequences lists, except for tuples
    and sets, paths strings. Tensors and any other objects are returned unchanged.

    >>> import numpy as np
    >>> plain_values({"lr": (np.float64(0.1), 1), "names": np.unique(["b", "a"])})
    {'lr': (0.1, 1), 'names': ['a', 'b']}
    """
    if isinstance(value, (Tensor, type)):
        return value
    if hasattr(value, "tolist"):  # of NumPy, also numbers and strings, and of pandas
        listed = value.tolist()
        return plain_values(listed) if isinstance(listed, list) else listed
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {plain_values(key): plain_values(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return tuple(plain_values(each) for each in value)
    if isinstance(value, Set):
        return {plain_values(each) for each in value}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [plain_values(each) for each in value]
    return value


def size_pair(size: Any) -> tuple[int, int]:
    """Returns a height and width that are given as one integer for both or as two, of Python or NumPy.

    Raises:
        ValueError: If they are neither.
    """
    size = size.tolist() if isinstance(size, Tensor) else plain_values(size)
    try:
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        return operator.index(height), operator.index(width)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Expected a size of one integer or of two, height and width, but got {size!r}") from error
