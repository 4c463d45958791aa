"""Pairs of images listed in a csv file."""

from dataclasses import dataclass
from pathlib import Path

from ..samples.csv_table import paths_of, read_table, row_location
from ..samples.samples import Samples
from ..samples.split_folders import SPLIT_NAMES, Split
from .dataset import Pair

_SAME = {"0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}


@dataclass(frozen=True)
class ListedPair:
    """Two files, whether they are of one class, or None where that is not said, and where the list has them."""

    first: Path
    second: Path
    same: bool | None
    line: str

    @property
    def paths(self) -> tuple[Path, Path]:
        """Both files."""
        return self.first, self.second


def read_pair_list(table: Path, root: Path, argument: str, labeled: bool = True) -> dict[Split, list[ListedPair]]:
    """Reads a csv file with the columns `first`, `second`, `same` and perhaps `split`, which is `valid` by default.

    Args:
        table: The file.
        root: Folder that the paths are relative to.
        argument: Whose value the file is, for an error.
        labeled: Whether `same` is read: 0 or 1, false or true, no or yes.

    Raises:
        FileNotFoundError: If the file is missing, or an image that it lists.
        ValueError: If it is no such csv; its line is named.
    """
    if not table.is_file():
        raise FileNotFoundError(f"Expected `{argument}` to be a csv file, but there is none at {table}")
    rows = read_table(table, ",", ["first", "second", *(["same"] if labeled else [])])
    files = zip(*(paths_of(rows, root, column, table) for column in ("first", "second")), strict=True)
    listed: dict[Split, list[ListedPair]] = {}
    for i, (row, (first, second)) in enumerate(zip(rows, files, strict=True)):
        line = row_location(table, i)
        same = _SAME.get(row["same"].strip().lower()) if labeled else None
        if labeled and same is None:
            raise ValueError(f"Expected 0, 1, false, true, no or yes in same, but got {row['same']!r} ({line})")
        split = SPLIT_NAMES.get(row.get("split", "valid"))
        if split is None:
            raise ValueError(f"Expected train, valid or test in split, but got {row['split']!r} ({line})")
        listed.setdefault(split, []).append(ListedPair(first, second, same, line))
    return listed


def take_listed(found: dict[Split, Samples], listed: dict[Split, list[ListedPair]]) -> dict[Split, Samples]:
    """Moves what the pairs of validation and test name there from training, where they have no samples of their own."""
    found = {**found}
    for split in listed:
        if split not in found:
            named = {path for pair in listed[split] for path in pair.paths}
            train = found["train"]
            taken = [i for i, path in enumerate(train.paths) if path in named]
            kept = [i for i, path in enumerate(train.paths) if path not in named]
            found |= {split: train[taken], "train": train[kept]}
    return found


def check_listed(samples: dict[Split, Samples], listed: dict[Split, list[ListedPair]]) -> None:
    """Raises ValueError where a pair is not of images of its own split."""
    splits = {path: split for split, part in samples.items() for path in part.paths}
    for split, pairs in listed.items():
        for pair in pairs:
            for path in pair.paths:
                if path not in splits:
                    raise ValueError(f"Expected pairs of the data's own images, but {path} is none ({pair.line})")
                if splits[path] != split:
                    raise ValueError(
                        f"Expected {split} pairs to be of {split} images, but {path} is a {splits[path]} image "
                        f"({pair.line}); without `valid_fraction` and `test_fraction` none are set aside"
                    )


def indices_of(pairs: list[ListedPair], paths: list[Path]) -> list[Pair]:
    """Returns the pairs both of whose files are among the paths, by their indices there."""
    index = {path: i for i, path in enumerate(paths)}
    return [Pair(index[p.first], index[p.second], p.same) for p in pairs if p.first in index and p.second in index]
