"""Feature tensors that are filled row by row, in memory or in a memory-mapped safetensors file."""

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

_DTYPE_NAMES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64"}
_ALIGNMENT = 64  # bytes
_FLUSH_EVERY = 5.0  # seconds


class FeatureRows:
    """Features of images, `(views, n, ...)`, with a mask of the rows that are written, `(views, n)`.

    Args:
        shape: Shape of all features.
        dtype: Data type of the features.
    """

    def __init__(self, shape: Sequence[int], dtype: torch.dtype) -> None:
        self.features = torch.empty(*shape, dtype=dtype)
        self.written = torch.zeros(*shape[:2], dtype=torch.bool)

    def write(self, views: int | Tensor, rows: Tensor, values: Tensor) -> None:
        """Writes features of some images.

        Args:
            views: The view of all of them, or of each, `(b,)`.
            rows: Indices of the images, `(b,)`.
            values: Their features, `(b, ...)`.

        Raises:
            ValueError: If a finite value is outside the range of the data type.
        """
        self._set(views, rows, values)
        self.written[views, rows] = True

    def flush(self) -> None:
        """Writes pending rows to the disk, if the features are in a file."""

    def _set(self, views: int | Tensor, rows: Tensor, values: Tensor) -> None:
        converted = values.to(self.features.dtype)
        if not torch.equal(converted.isfinite(), values.isfinite()):
            raise ValueError(
                f"Expected features within the range of {self.features.dtype}, but got {values.abs().max():g}; "
                '`dtype="bfloat16"` has the range of float32'
            )
        self.features[views, rows] = converted


class FeatureFile(FeatureRows):
    """Feature rows in a memory-mapped safetensors file, of which only the pages in use occupy memory.

    The file has the suffix `.partial` until `finish` renames it. An unfinished file of the same shape and data type is
    completed: a row counts as written once its values are on the disk. Several processes may each write their own rows.

    Args:
        path: The finished file.
        shape: Shape of all features.
        dtype: Data type of the features.

    Raises:
        OSError: If the disk lacks space for the file. The incomplete file is removed.
    """

    def __init__(self, path: Path, shape: Sequence[int], dtype: torch.dtype) -> None:
        self.path, self._partial = path, path.with_suffix(".partial")
        header, start, size = _layout(shape, dtype)
        if not (self._partial.exists() and _has_header(self._partial, header, start + size)):
            _allocate(self._partial, header, start + size)
        with self._partial.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), start + size)
        count = math.prod(shape[:2])
        data = torch.frombuffer(self._map, dtype=torch.uint8, offset=start)
        self.features = data[:-count].view(dtype).view(*shape)
        self.written = data[-count:].view(torch.bool).view(*shape[:2])
        self._pending: list[tuple[int | Tensor, Tensor]] = []
        self._last_flush = time.monotonic()

    def write(self, views: int | Tensor, rows: Tensor, values: Tensor) -> None:
        self._set(views, rows, values)
        self._pending.append((views, rows))
        if time.monotonic() - self._last_flush > _FLUSH_EVERY:
            self.flush()

    def flush(self) -> None:
        self._map.flush()
        for views, rows in self._pending:
            self.written[views, rows] = True
        self._map.flush()
        self._pending, self._last_flush = [], time.monotonic()

    def finish(self) -> None:
        """Renames the complete file to `path`.

        Raises:
            RuntimeError: If a row is not written.
        """
        if not self.written.all():
            num_missing = int((~self.written).sum())
            raise RuntimeError(f"Expected all rows of {self.path} to be written, but {num_missing} are missing")
        os.replace(self._partial, self.path)


def load_features(path: Path) -> Tensor:
    """Returns the features of a finished file, memory-mapped."""
    with safetensors.safe_open(path, "pt") as file:
        features: Tensor = file.get_tensor("features")
        return features


def _layout(shape: Sequence[int], dtype: torch.dtype) -> tuple[bytes, int, int]:
    """Returns the header of the file, the offset of its tensors in bytes, and their total size in bytes."""
    size, count = math.prod(shape) * dtype.itemsize, math.prod(shape[:2])
    header: dict[str, Any] = {
        "features": {"dtype": _DTYPE_NAMES[dtype], "shape": [*shape], "data_offsets": [0, size]},
        "written": {"dtype": "BOOL", "shape": [*shape[:2]], "data_offsets": [size, size + count]},
    }
    text = json.dumps(header).encode()
    length = -(-(len(text) + 8) // _ALIGNMENT) * _ALIGNMENT - 8
    return length.to_bytes(8, "little") + text.ljust(length), length + 8, size + count


def _has_header(path: Path, header: bytes, size: int) -> bool:
    with path.open("rb") as file:
        return path.stat().st_size == size and file.read(len(header)) == header


def _allocate(path: Path, header: bytes, size: int) -> None:
    """Creates a file of zeros with a header and allocates its disk space; on failure the file is removed."""
    try:
        with path.open("wb") as file:
            # without allocated space, writing to the mapped file on a full disk kills the process (SIGBUS)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.writelines(bytes(min(2**20, size - start)) for start in range(0, size, 2**20))
            file.seek(0)
            file.write(header)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(
            error.errno, f"Expected space for {size / 2**20:,.1f} MiB of features, but: {error.strerror}", str(path)
        ) from error
