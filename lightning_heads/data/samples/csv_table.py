"""Reads csv files whose rows are samples."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .folders import find_file
from .split_folders import Split, split_of

# What the cells of a column of booleans stand for, in lower case.
BOOLEANS = {"0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}


@dataclass(frozen=True)
class Table:
    """A csv file: its rows, as mappings from column to cell, and the line of the file at which each row begins."""

    path: Path
    rows: list[dict[str, str]]
    lines: list[int]

    def column(self, name: str) -> list[str]:
        """Returns the cells of a column."""
        return [row[name] for row in self.rows]

    def location(self, index: int) -> str:
        """Returns the file and line of a row, for error messages."""
        return f"{self.path}, line {self.lines[index]}"


def read_table(path: Path, delimiter: str, columns: Sequence[str]) -> Table:
    """Reads a csv file with a header that has the given columns, and one cell per column in every row.

    Blanks around cells and rows of empty cells are left out.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not csv in UTF-8, a column is missing or repeated, there are no rows, or a row has another
            number of cells.
    """
    if not path.is_file():
        raise FileNotFoundError(f"Expected `table` to be a csv file, but there is none at {path}")
    try:
        lines, cells = _read_cells(path, delimiter)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"Expected {path} to be csv in UTF-8, but: {error}") from error
    header = cells[0] if cells else []
    if missing := [column for column in dict.fromkeys(columns) if column not in header]:
        raise ValueError(f"Expected {path} to have the columns {', '.join(missing)}, but it has {', '.join(header)}")
    if len(set(header)) < len(header):
        raise ValueError(f"Expected {path} to name each column once, but it has {', '.join(header)}")
    if len(cells) < 2:
        raise ValueError(f"Expected {path} to have rows, but it has none below its header")
    for line, row in zip(lines, cells, strict=True):
        if len(row) != len(header):
            raise ValueError(
                f"Expected {len(header)} cells, one a column, but got another number ({path}, line {line})"
            )
    return Table(path, [dict(zip(header, row, strict=True)) for row in cells[1:]], lines[1:])


def _read_cells(path: Path, delimiter: str) -> tuple[list[int], list[list[str]]]:
    """Returns the lines at which the header and the rows begin, and their cells, without rows of empty cells."""
    lines, cells = [], []
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=delimiter, skipinitialspace=delimiter != " ")
        line = 1
        for row in reader:
            if any(stripped := [cell.strip() for cell in row]):
                lines.append(line)
                cells.append(stripped)
            line = reader.line_num + 1
    return lines, cells


def paths_of(table: Table, root: Path, column: str) -> list[Path]:
    """Returns the paths that a column lists, and raises FileNotFoundError if some of the files are missing."""
    paths = [find_file(root / cell) for cell in table.column(column)]
    missing = [i for i, path in enumerate(paths) if not path.is_file()]
    if missing:
        first = missing[0]
        raise FileNotFoundError(
            f"Expected every image of {table.path} to be there, but {len(missing)} of {len(paths)} are missing, the "
            f"first {paths[first]} ({table.location(first)})"
        )
    return paths


def split_column(table: Table, column: str) -> list[list[int]]:
    """Returns the row indices of training, validation and test, by a column of `train`, `valid` or `test`.

    Values may be other names of splits as well; see `split_of`. A column that is named after a split, such as fastai's
    `is_valid`, may have booleans, where rows of no split are for training, or for validation if it is named after that.

    Raises:
        ValueError: If a cell has another value, or there are no rows for training.
    """
    named = split_of(column.lower().removeprefix("is_"))
    order: list[Split] = ["train", "valid", "test"]
    parts: list[list[int]] = [[] for _ in order]
    for i, cell in enumerate(table.column(column)):
        split = split_of(cell)
        if split is None and named is not None and cell.lower() in BOOLEANS:
            split = named if BOOLEANS[cell.lower()] else "valid" if named == "train" else "train"
        if split is None:
            raise ValueError(f"Expected train, valid or test in {column}, but got {cell!r} ({table.location(i)})")
        parts[order.index(split)].append(i)
    if not parts[0]:
        values = ", ".join(dict.fromkeys(table.column(column)))
        raise ValueError(f"Expected {table.path} to list training images, but the column {column} has only {values}")
    return parts
