"""Files of tensors that are never half written."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors.torch import save_file
from torch import Tensor


def save_whole(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file, which appears whole or not at all, and the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        save_file({**tensors}, partial, metadata)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock, so that no other run makes the same file meanwhile; makes the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logging.getLogger(__name__).info("Waiting for another run that makes %s", path)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
