"""Finds folders named after the splits of a data set."""

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Literal

from .folders import subfolders

Split = Literal["train", "valid", "test"]

_NAMES: dict[str, Split] = {
    **{"train": "train", "training": "train"},
    **{"valid": "valid", "validation": "valid", "val": "valid", "dev": "valid"},
    **{"test": "test", "testing": "test"},
}


def split_of(name: str) -> Split | None:
    """Returns the split that the name of a folder, or a value in a table, stands for, in any case.

    >>> [split_of(name) for name in ("Training", "val", "TEST", "cats")]
    ['train', 'valid', 'test', None]
    """
    return _NAMES.get(name.lower())


def split_folders(root: Path, inner: str = ".") -> dict[Split, Path]:
    """Returns the folder in `root` of each split that has one; empty if there are no such folders.

    Args:
        root: The folder.
        inner: Folder that the folder of a split must have in it.

    Raises:
        ValueError: If there are folders of splits, but none for training, or two for one split.
    """
    found: dict[Split, Path] = {}
    named = [folder for folder in subfolders(root) if split_of(folder.name) and (folder / inner).is_dir()]
    for folder in sorted(named, key=lambda folder: [*_NAMES].index(folder.name.lower())):
        split = _NAMES[folder.name.lower()]
        if split in found:
            raise ValueError(f"Expected one of {found[split] / inner} and {folder / inner}, but both are there")
        found[split] = folder
    if found and "train" not in found:
        others = ", ".join(str(folder / inner) for folder in found.values())
        expected = root / "train" / inner
        raise ValueError(f"Expected a folder to train on, {expected}, beside {others}, but there is none")
    return found


def check_siblings(
    folders: Mapping[Split, Path], find: Callable[[Path], Collection[Path]], used: Iterable[str | Path] = ()
) -> None:
    """Raises ValueError if other folders with samples, which would be ignored, lie beside those of the splits.

    Args:
        folders: The folder of each split, all in one folder, or none if there are no such folders.
        find: Returns the samples below a folder.
        used: Files and folders that are used otherwise, such as targets; folders that contain them are no error.
    """
    siblings = [path for root in {folder.parent for folder in folders.values()} for path in subfolders(root)]
    siblings = [path for path in siblings if path not in folders.values() and find(path)]
    if siblings:
        absolute = [Path(os.path.abspath(path)) for path in used]
        in_use = {*absolute, *(parent for path in absolute for parent in path.parents)}
        siblings = [path for path in siblings if Path(os.path.abspath(path)) not in in_use]
    if siblings:
        raise ValueError(
            f"Expected only folders of splits beside {folders['train']}, but got "
            f"{', '.join(path.name for path in siblings)}; name them after splits (train, valid or test) or move them"
        )


def check_nested_splits(root: Path, paths: Iterable[Path]) -> None:
    """Raises ValueError if samples lie in folders of splits below a folder in `root`, as of another data set.

    Args:
        root: Folder of a data set without folders of splits.
        paths: Its samples.
    """
    names: dict[Path, set[str]] = {}
    for folder in {path.parent for path in paths}:
        while folder != root:
            names.setdefault(folder.parent, set()).add(folder.name)
            folder = folder.parent
    for folder in sorted(names.keys() - {root}):
        splits = {split_of(name) for name in names[folder]}
        # a class may have a folder called `train` beside others
        if "train" in splits and (None not in splits or len(splits) > 2):
            raise ValueError(
                f"Expected folders of splits in {root} itself, but {folder} has "
                f"{', '.join(sorted(name for name in names[folder] if split_of(name)))}; pass the folder of one data "
                "set as `root`"
            )
