"""Reads csv files whose rows are samples."""

import csv
from pathlib import Path

from .split_folders import SPLIT_NAMES, Split

Rows = list[dict[str, str]]


def read_table(table: Path, delimiter: str, columns: list[str]) -> Rows:
    """Reads a csv file with a header that has the given columns, and one cell per column in every row.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not csv in UTF-8, a column is missing or repeated, there are no rows, or a row has another
            number of cells.
    """
    if not table.is_file():
        raise FileNotFoundError(f"Expected `table` to be a csv file, but there is none at {table}")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter=delimiter)
            header = [*(reader.fieldnames or [])]
            rows = [*reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"Expected {table} to be csv in UTF-8, but: {error}") from error
    if missing := [column for column in dict.fromkeys(columns) if column not in header]:
        raise ValueError(f"Expected {table} to have the columns {', '.join(missing)}, but it has {', '.join(header)}")
    if len(set(header)) < len(header):
        raise ValueError(f"Expected {table} to name each column once, but it has {', '.join(header)}")
    if not rows:
        raise ValueError(f"Expected {table} to have rows, but it has none below its header")
    for i, row in enumerate(rows):
        if None in row or None in row.values():
            raise ValueError(
                f"Expected {len(header)} cells, one a column, but got another number ({row_location(table, i)})"
            )
    return rows


def row_location(table: Path, index: int) -> str:
    """Returns the file and line of a row, for error messages."""
    return f"{table}, line {index + 2}"


def paths_of(rows: Rows, root: Path, column: str, table: Path) -> list[Path]:
    """Returns the paths that a column lists, and raises FileNotFoundError if some of the files are missing."""
    paths = [root / row[column] for row in rows]
    missing = [i for i, path in enumerate(paths) if not path.is_file()]
    if missing:
        first = missing[0]
        raise FileNotFoundError(
            f"Expected every image of {table} to be there, but {len(missing)} of {len(rows)} are missing, the first "
            f"{paths[first]} ({row_location(table, first)})"
        )
    return paths


def split_column(rows: Rows, column: str, table: Path) -> list[list[int]]:
    """Returns the row indices of training, validation and test, by a column of `train`, `valid` (or `val`), `test`."""
    order: list[Split] = ["train", "valid", "test"]
    parts: list[list[int]] = [[] for _ in order]
    for i, row in enumerate(rows):
        if row[column] not in SPLIT_NAMES:
            raise ValueError(
                f"Expected train, valid or test in {column}, but got {row[column]!r} ({row_location(table, i)})"
            )
        parts[order.index(SPLIT_NAMES[row[column]])].append(i)
    if not parts[0]:
        values = ", ".join(dict.fromkeys(row[column] for row in rows))
        raise ValueError(f"Expected {table} to list training images, but the column {column} has only {values}")
    return parts
