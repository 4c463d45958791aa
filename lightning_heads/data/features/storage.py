"""Rows of features that are filled one after another, in memory or in a file that is mapped to it."""

import json
import math
import mmap
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

_TYPES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64"}
_ALIGNMENT = 64  # bytes
_SAVE_EVERY = 5.0  # seconds


class FeatureRows:
    """Features of images, `(views, n, ...)`, and which of them are written, `(views, n)`.

    Args:
        shape: Shape of all.
        dtype: Type of their values.
    """

    def __init__(self, shape: Sequence[int], dtype: torch.dtype) -> None:
        self.features = torch.empty(*shape, dtype=dtype)
        self.written = torch.zeros(*shape[:2], dtype=torch.bool)

    def write(self, views: int | Tensor, rows: Tensor, values: Tensor) -> None:
        """Writes rows of a view, or of a view each.

        Raises:
            ValueError: If a finite value is beyond the range of their type.
        """
        self._set(views, rows, values)
        self.written[views, rows] = True

    def flush(self) -> None:
        """Has what is written outlive the process, where it is kept."""

    def _set(self, views: int | Tensor, rows: Tensor, values: Tensor) -> None:
        kept = values.to(self.features.dtype)
        if not torch.equal(kept.isfinite(), values.isfinite()):
            raise ValueError(
                f"Expected features within the range of {self.features.dtype}, but got {values.abs().max():g}; "
                '`dtype="bfloat16"` has that of float32'
            )
        self.features[views, rows] = kept


class FeatureFile(FeatureRows):
    """Rows in a safetensors file, of which the pages in use alone take memory.

    The file has another name until `finish`. One that a process left before that is filled further: a row counts as
    written once its values are on the disk. Several processes may fill rows of their own.

    Args:
        path: The file.
        shape: Shape of all features.
        dtype: Type of their values.

    Raises:
        OSError: If there is no room for it. What was made of the file is removed.
    """

    def __init__(self, path: Path, shape: Sequence[int], dtype: torch.dtype) -> None:
        self.path, self._partial = path, path.with_suffix(".partial")
        head, start, size = _layout(shape, dtype)
        if not (self._partial.exists() and _begins_with(self._partial, head, start + size)):
            _reserve(self._partial, head, start + size)
        with self._partial.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), start + size)
        count = math.prod(shape[:2])
        data = torch.frombuffer(self._map, dtype=torch.uint8, offset=start)
        self.features = data[:-count].view(dtype).view(*shape)
        self.written = data[-count:].view(torch.bool).view(*shape[:2])
        self._pending: list[tuple[int | Tensor, Tensor]] = []
        self._saved = time.monotonic()

    def write(self, views: int | Tensor, rows: Tensor, values: Tensor) -> None:
        self._set(views, rows, values)
        self._pending.append((views, rows))
        if time.monotonic() - self._saved > _SAVE_EVERY:
            self.flush()

    def flush(self) -> None:
        self._map.flush()
        for views, rows in self._pending:
            self.written[views, rows] = True
        self._map.flush()
        self._pending, self._saved = [], time.monotonic()

    def finish(self) -> None:
        """Gives the file its name.

        Raises:
            RuntimeError: If a row is missing.
        """
        if not self.written.all():
            raise RuntimeError(f"Expected all rows of {self.path}, but {int((~self.written).sum())} are not written")
        os.replace(self._partial, self.path)


def load_features(path: Path) -> Tensor:
    """Returns the features of a file that is whole, mapped to memory."""
    with safetensors.safe_open(path, "pt") as file:
        features: Tensor = file.get_tensor("features")
        return features


def _layout(shape: Sequence[int], dtype: torch.dtype) -> tuple[bytes, int, int]:
    """Returns what the file begins with, where its tensors begin, and how many bytes they are."""
    size, count = math.prod(shape) * dtype.itemsize, math.prod(shape[:2])
    header: dict[str, Any] = {
        "features": {"dtype": _TYPES[dtype], "shape": [*shape], "data_offsets": [0, size]},
        "written": {"dtype": "BOOL", "shape": [*shape[:2]], "data_offsets": [size, size + count]},
    }
    text = json.dumps(header).encode()
    length = -(-(len(text) + 8) // _ALIGNMENT) * _ALIGNMENT - 8
    return length.to_bytes(8, "little") + text.ljust(length), length + 8, size + count


def _begins_with(path: Path, head: bytes, size: int) -> bool:
    with path.open("rb") as file:
        return path.stat().st_size == size and file.read(len(head)) == head


def _reserve(path: Path, head: bytes, size: int) -> None:
    """Makes a file of zeros behind a head, with room on the disk for all of it, or none."""
    try:
        with path.open("wb") as file:
            if hasattr(os, "posix_fallocate"):  # a mapped file that finds no room later ends the process
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.writelines(bytes(min(2**20, size - start)) for start in range(0, size, 2**20))
            file.seek(0)
            file.write(head)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(
            error.errno, f"Expected room for {size / 2**20:,.1f} MiB of features, but: {error.strerror}", str(path)
        ) from error
