"""Files and their targets, split by split."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .split_folders import Split
from .stratified_split import stratified_split

_SPLITS: tuple[Split, ...] = ("train", "valid", "test")


@dataclass(frozen=True)
class Samples:
    """Files and their targets: numbers, `(n,)` or `(n, k)`, or a list with a file each, or a tuple of files."""

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
        """Returns what each part, of training, validation and test, takes, without the empty ones."""
        return {split: self[part] for split, part in zip(_SPLITS, parts, strict=True) if part}


def hold_out(
    found: dict[Split, Samples],
    valid_fraction: float,
    test_fraction: float,
    seed: int,
    keys: Sequence[Hashable] | None = None,
) -> dict[Split, Samples]:
    """Fills validation and test, where they have no samples of their own, from those of training.

    Args:
        found: Samples of each split that there is, training at least.
        valid_fraction: Share for validation.
        test_fraction: Share for testing.
        seed: Seed of the split.
        keys: What to stratify by, one a training sample; see `stratified_split`, as for what it raises.
    """
    train = found["train"]
    fractions = [0.0 if "valid" in found else valid_fraction, 0.0 if "test" in found else test_fraction]
    return found | train.split(stratified_split(keys or [0] * len(train.paths), fractions, seed))
