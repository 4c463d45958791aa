"""Finds files and folders, whatever the Unicode normalization of their names."""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

# Files and folders that operating systems, network drives and Lightning write beside a user's own, in lower case.
_SYSTEM_NAMES = {"$recycle.bin", "@eadir", "__macosx", "desktop.ini", "lightning_logs", "lost+found", "thumbs.db"}
_SYSTEM_NAMES |= {"#recycle", "system volume information"}


def require_folder(root: Path, what: str) -> None:
    """Raises FileNotFoundError unless `root` is a folder."""
    if not root.is_dir():
        raise FileNotFoundError(f"Expected `{what}` to be a folder, but there is none at {root}")


def subfolders(folder: Path) -> list[Path]:
    """Returns the folders in a folder that hold files, sorted; omits hidden ones and those of the system."""
    with os.scandir(folder) as entries:
        found = [folder / entry.name for entry in entries if entry.is_dir() and _is_visible(entry.name)]
    return sorted(path for path in found if any(files_below(path)))


def files_below(root: Path) -> Iterator[Path]:
    """Returns the files below a folder, in any order; follows links, omits hidden files and those of the system."""
    folders, visited = [os.fspath(root)] if root.is_dir() else [], set()
    while folders:
        folder = folders.pop()
        real = os.path.realpath(folder)
        if real in visited:  # by a link
            continue
        visited.add(real)
        with os.scandir(folder) as entries:
            for entry in entries:
                if not _is_visible(entry.name):
                    continue
                if entry.is_dir():
                    folders.append(entry.path)
                else:
                    yield Path(entry.path)


def nfc(name: str) -> str:
    """Returns a name in Unicode's composed form (NFC), by which names are compared.

    macOS writes an umlaut in a file name as a letter and a mark (NFD), other systems as one character (NFC).
    """
    return unicodedata.normalize("NFC", name)


def find_file(path: Path) -> Path:
    """Returns the existing path whose names equal those of `path` in NFC or NFD, or `path` itself if there is none."""
    if path.exists() or path.parent == path:
        return path
    parent = find_file(path.parent)
    names = (path.name, nfc(path.name), unicodedata.normalize("NFD", path.name))
    return next((parent / name for name in names if (parent / name).exists()), path)


def _is_visible(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _SYSTEM_NAMES
