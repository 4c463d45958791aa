"""Files of tensors that are never half written."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

_ASK_EVERY = 0.5  # seconds


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
def locked(path: Path, together: Callable[[Callable[[], bool]], bool] = lambda acquire: acquire()) -> Iterator[None]:
    """Holds a lock, so that no other run makes the same file meanwhile; makes the folders that it needs.

    Args:
        path: The file.
        together: Tries to acquire the lock in the first of several processes, and tells all whether it did. Processes
            that wait ask again and again, as none waits in a collective for longer than the process group allows.
    """
    lock = FileLock(path.with_suffix(".lock"))

    def acquire() -> bool:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    if not together(acquire):
        logging.getLogger(__name__).info("Waiting for another run that makes %s", path)
        while not together(acquire):
            time.sleep(_ASK_EVERY)
    try:
        yield
    finally:
        lock.release()


def save_picture(picture: Image.Image, path: Path) -> None:
    """Writes a png file, which appears whole or not at all, and the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    picture.save(partial, format="PNG")
    os.replace(partial, path)


def file_stamps(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Returns the path, the size and the time of change of files; of one that is missing, size and time are -1."""
    return [(os.path.abspath(path), *_stamp(path)) for path in paths]


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns
