"""Files that are replaced atomically, locks between runs, and file stamps."""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from filelock import FileLock, Timeout
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

_RETRY_EVERY = 0.5  # seconds


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields the path of a temporary file beside `path`, which replaces `path` when the block ends without exception.

    The replacement is atomic: a reader sees the old file or the new one, and a failed writer leaves the old one and no
    temporary file. Missing parent folders are created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def printable(path: str | Path) -> str:
    r"""Returns a path as text that UTF-8 can encode: bytes that are not UTF-8 become escapes such as `\udce9`.

    Python reads such bytes of a file name as lone surrogates, which UTF-8 cannot encode.
    """
    return str(path).encode("utf-8", "backslashreplace").decode()


def open_csv(path: Path) -> TextIO:
    """Opens a csv file to write it in UTF-8; names of files are escaped as in `printable`."""
    return path.open("w", newline="", encoding="utf-8", errors="backslashreplace")


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes a safetensors file atomically; see `replacing`."""
    with replacing(path) as temporary:
        save_file({**tensors}, temporary, metadata)


def save_picture(picture: Image.Image, path: Path) -> None:
    """Writes a png file atomically; see `replacing`."""
    with replacing(path) as temporary:
        picture.save(temporary, format="PNG")


@contextmanager
def locked(path: Path, together: Callable[[Callable[[], bool]], bool] = lambda acquire: acquire()) -> Iterator[None]:
    """Holds a lock file beside `path`, so that no other run writes `path` meanwhile; creates missing parent folders.

    Args:
        path: The file to be written.
        together: Calls its argument, which tries to acquire the lock without waiting, on the first of several ranks
            (processes) and returns the result on all of them. It is called every half second until the lock is
            acquired, since a collective that blocks meanwhile would exceed the process group's timeout.
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
        logging.getLogger(__name__).info("Waiting for another run that writes %s", path)
        while not together(acquire):
            time.sleep(_RETRY_EVERY)
    try:
        yield
    finally:
        lock.release()


def file_stamps(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Returns the absolute path, size in bytes and modification time in ns of each file, or -1, -1 if it is missing."""
    return [(os.path.abspath(path), *_stamp(path)) for path in paths]


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns
