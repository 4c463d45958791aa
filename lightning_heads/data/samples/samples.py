"""Samples of a split: files and their targets."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from .split_folders import Split
from .stratified_split import stratified_split

_SPLITS: tuple[Split, ...] = ("train", "valid", "test")
_MOST_LISTED = 30  # classes that are logged by name


@dataclass(frozen=True)
class Samples:
    """Files and their targets: numbers, `(n,)` or `(n, k)`, or a list of a file, or a tuple of files, per sample."""

    paths: list[Path]
    targets: Tensor | list[Any]

    def __getitem__(self, indices: Sequence[int]) -> "Samples":
        paths = [self.paths[i] for i in indices]
        if isinstance(self.targets, Tensor):
            return Samples(paths, self.targets[torch.tensor(indices, dtype=torch.long)])
        return Samples(paths, [self.targets[i] for i in indices])

    def tolist(self) -> list[Any]:
        """Returns the targets as a list."""
        return self.targets.tolist() if isinstance(self.targets, Tensor) else self.targets

    def split(self, parts: Sequence[Sequence[int]]) -> dict[Split, "Samples"]:
        """Returns the samples of each split that is not empty, from the indices of training, validation and test."""
        return {split: self[part] for split, part in zip(_SPLITS, parts, strict=True) if part}


def hold_out(
    found: dict[Split, Samples],
    valid_fraction: float,
    test_fraction: float,
    seed: int,
    keys: Sequence[Hashable] | None = None,
) -> dict[Split, Samples]:
    """Holds out training samples for validation and test, where these have no samples of their own.

    Args:
        found: Samples of each split that has any, at least of training.
        valid_fraction: Fraction of the training samples for validation.
        test_fraction: Fraction of the training samples for test.
        seed: Seed of the split.
        keys: Key of each training sample to stratify by; none by default. See `stratified_split`, also for the errors.
    """
    train = found["train"]
    fractions = [0.0 if "valid" in found else valid_fraction, 0.0 if "test" in found else test_fraction]
    return found | train.split(stratified_split(keys or [0] * len(train.paths), fractions, seed))


def log_found(samples: Mapping[Split, Samples], source: Path, class_names: Sequence[str] = ()) -> None:
    """Logs the number of samples of each split, and of each class.

    Args:
        samples: Samples of each split that has any.
        source: Folder or table in which they were found.
        class_names: Names of the classes, if targets are class indices `(n,)` or 0 and 1 per class `(n, num_classes)`.
    """
    counts = [f"{len(part.paths)} {split}" for split, part in samples.items()]
    text = f"Found {' and '.join(filter(None, [', '.join(counts[:-1]), counts[-1]]))} images in {source}"
    if class_names:
        targets = torch.cat([torch.as_tensor(part.targets) for part in samples.values()])
        totals = targets.bincount(minlength=len(class_names)) if targets.ndim == 1 else targets.sum(dim=0).long()
        listed = [f"{name} ({n})" for name, n in zip(class_names, totals.tolist(), strict=True)]
        more = f" and {len(listed) - _MOST_LISTED} more" if len(listed) > _MOST_LISTED else ""
        text += f" of {len(class_names)} classes: {', '.join(listed[:_MOST_LISTED])}{more}"
    rank_zero_info(text)
