"""Finds folders named after the splits of a data set."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

Split = Literal["train", "valid", "test"]

# The split that each name of a folder, or value in a table, stands for.
SPLIT_NAMES: dict[str, Split] = {"train": "train", "valid": "valid", "val": "valid", "test": "test"}


def require_folder(root: Path, what: str) -> None:
    """Raises FileNotFoundError unless `root` is a folder."""
    if not root.is_dir():
        raise FileNotFoundError(f"Expected `{what}` to be a folder, but there is none at {root}")


def split_folders(root: Path) -> dict[Split, Path]:
    """Returns the folder of each split that has one, or `root` itself for training if there are no such folders.

    Raises:
        FileNotFoundError: If there is no folder `root`.
        ValueError: If there are folders of splits, but none for training, or two for validation.
    """
    require_folder(root, "root")
    return {split: root / name for split, name in split_names(lambda name: root / name).items()} or {"train": root}


def split_names(folder_of: Callable[[str], Path]) -> dict[Split, str]:
    """Returns the folder name of each split whose folder exists.

    Raises:
        ValueError: If there are folders of splits, but none for training, or two for validation.
    """
    found: dict[Split, str] = {}
    for name, split in SPLIT_NAMES.items():
        if folder_of(name).is_dir():
            if split in found:
                raise ValueError(f"Expected one of {folder_of(found[split])} and {folder_of(name)}, but both are there")
            found[split] = name
    if found and "train" not in found:
        others = ", ".join(str(folder_of(name)) for name in found.values())
        raise ValueError(f"Expected a folder to train on, {folder_of('train')}, beside {others}, but there is none")
    return found
