"""Pairs of images listed in a csv file."""

from dataclasses import dataclass
from pathlib import Path

from ..samples.csv_table import BOOLEANS, paths_of, read_table
from ..samples.samples import Samples
from ..samples.split_folders import Split, split_of
from .dataset import Pair


@dataclass(frozen=True)
class ListedPair:
    """Two files, whether they are of one class, or None if that is unknown, and their line in the csv file."""

    first: Path
    second: Path
    same: bool | None
    line: str

    @property
    def paths(self) -> tuple[Path, Path]:
        """Both files."""
        return self.first, self.second


def read_pair_list(table: Path, root: Path, argument: str, labeled: bool = True) -> dict[Split, list[ListedPair]]:
    """Reads a csv file with the columns `first`, `second`, `same` and optionally `split`, `valid` by default.

    Args:
        table: The file.
        root: Folder that the paths are relative to.
        argument: Name of the argument whose value the file is, for errors.
        labeled: Whether to read `same`: 0 or 1, false or true, no or yes.

    Raises:
        FileNotFoundError: If the file, or an image that it lists, is missing.
        ValueError: If a column is missing, or a line has another value; the error names the line.
    """
    if not table.is_file():
        raise FileNotFoundError(f"Expected `{argument}` to be a csv file, but there is none at {table}")
    content = read_table(table, ",", ["first", "second", *(["same"] if labeled else [])])
    files = zip(*(paths_of(content, root, column) for column in ("first", "second")), strict=True)
    listed: dict[Split, list[ListedPair]] = {}
    for i, (row, (first, second)) in enumerate(zip(content.rows, files, strict=True)):
        line = content.location(i)
        same = BOOLEANS.get(row["same"].lower()) if labeled else None
        if labeled and same is None:
            raise ValueError(f"Expected 0, 1, false, true, no or yes in same, but got {row['same']!r} ({line})")
        split = split_of(row.get("split", "valid"))
        if split is None:
            raise ValueError(f"Expected train, valid or test in split, but got {row['split']!r} ({line})")
        listed.setdefault(split, []).append(ListedPair(first, second, same, line))
    return listed


def take_listed(found: dict[Split, Samples], listed: dict[Split, list[ListedPair]]) -> dict[Split, Samples]:
    """Moves images of listed validation or test pairs there from training, if that split has no images of its own."""
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
    """Raises ValueError if a listed pair has an image that is not of the pair's split."""
    splits = {path: split for split, part in samples.items() for path in part.paths}
    for split, pairs in listed.items():
        for pair in pairs:
            for path in pair.paths:
                if path not in splits:
                    raise ValueError(f"Expected pairs of images of the data set, but {path} is not one ({pair.line})")
                if splits[path] != split:
                    raise ValueError(
                        f"Expected {split} pairs to be of {split} images, but {path} is a {splits[path]} image "
                        f"({pair.line}); no images are held out at random if `valid_fraction` and `test_fraction` are 0"
                    )


def indices_of(pairs: list[ListedPair], paths: list[Path]) -> list[Pair]:
    """Returns the pairs that have both files in `paths`, as indices of it."""
    index = {path: i for i, path in enumerate(paths)}
    return [Pair(index[p.first], index[p.second], p.same) for p in pairs if p.first in index and p.second in index]
