"""Folders that are named after the splits of a data set."""

from pathlib import Path
from typing import Literal

Split = Literal["train", "valid", "test"]

SPLIT_FOLDERS: dict[str, Split] = {"train": "train", "valid": "valid", "val": "valid", "test": "test"}


def require_folder(root: Path, what: str) -> None:
    """Raises FileNotFoundError unless `root` is a folder."""
    if not root.is_dir():
        raise FileNotFoundError(f"Expected `{what}` to be a folder, but there is none at {root}")


def split_folders(root: Path) -> dict[Split, Path]:
    """Returns the folder of each split that there is one for, and `root` itself for training where there is none.

    Raises:
        FileNotFoundError: If there is no folder `root`.
        ValueError: If there are folders, but none to train on.
    """
    require_folder(root, "root")
    folders = {split: root / name for name, split in SPLIT_FOLDERS.items() if (root / name).is_dir()}
    if folders and "train" not in folders:
        raise ValueError(f"Expected {root} to hold train beside {', '.join(f.name for f in folders.values())}")
    return folders or {"train": root}
