"""Values are converted to Python's own types, at any depth."""

from collections import OrderedDict, UserDict, UserList
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from lightning_heads.utils.plain import plain_values, size_pair


class Pair(NamedTuple):
    low: float
    high: float


def _types(value: Any) -> Any:
    """Returns the nested types of a value."""
    if isinstance(value, dict):
        return dict, [(_types(key), _types(each)) for key, each in value.items()]
    return (type(value), [_types(each) for each in value]) if isinstance(value, (list, tuple, set)) else type(value)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.array([[1, 2]]), [[1, 2]]),
        (np.unique(["b", "a"]), ["a", "b"]),
        (np.array(2.0), 2.0),
        (np.array([np.str_("a"), None], dtype=object), ["a", None]),
        ([np.float64(1), (np.int8(2), None)], [1.0, (2, None)]),
        ({np.str_("dice"): np.float64(1), "nested": {"a": [np.int64(1)]}}, {"dice": 1.0, "nested": {"a": [1]}}),
        ({np.int64(1)}, {1}),
        (Path("a/b"), "a/b"),
        (UserDict(a=UserList([np.int64(1)])), {"a": [1]}),
        (OrderedDict(a=1), {"a": 1}),
        (Pair(np.float64(0), 1.0), (0.0, 1.0)),
        (range(2), [0, 1]),
        ("text", "text"),
        (b"bytes", b"bytes"),
        (None, None),
        (1e-3, 1e-3),
    ],
    ids=str,
)
def test_values_are_plain(value: Any, plain: Any) -> None:
    got = plain_values(value)
    assert got == plain
    assert _types(got) == _types(plain)


@pytest.mark.parametrize(
    "value", [torch.rand(2), torch.float16, np.float32, len, object()], ids=lambda x: type(x).__name__
)
def test_other_values_are_kept(value: object) -> None:
    assert plain_values(value) is value


@pytest.mark.parametrize("convert", [int, np.int64, np.uint8])
def test_a_size_is_a_number_or_a_pair(convert: Callable[[int], Any]) -> None:
    for size in (
        convert(64),
        [convert(64)] * 2,
        np.array([64, 64]),
        np.array(64),
        torch.tensor([64, 64]),
        (convert(64), 64),
    ):
        assert size_pair(size) == (64, 64)
        assert [type(side) for side in size_pair(size)] == [int, int]
    assert size_pair((32, 40)) == (32, 40)


@pytest.mark.parametrize("size", [64.5, "64", (1, 2, 3), [8], None])
def test_other_sizes_are_refused(size: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="Expected a size of one integer or of two"):
        size_pair(size)
