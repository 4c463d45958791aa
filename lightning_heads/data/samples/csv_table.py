"""Reading a csv file whose rows are samples."""

import csv
from pathlib import Path

from .split_folders import SPLIT_NAMES, Split

Rows = list[dict[str, str]]


def read_table(table: Path, delimiter: str, columns: list[str]) -> Rows:
    """Reads a csv file with a header, which must name the columns and have a cell of each in every row.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no csv in UTF-8, a column is missing or there twice, or a row is of other length.
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
    """Says where a row stands, for an error."""
    return f"{table}, line {index + 2}"


def paths_of(rows: Rows, root: Path, column: str, table: Path) -> list[Path]:
    """Returns the images that a column lists, and raises FileNotFoundError where some are missing."""
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
    """Returns the rows to train on, to validate and to test, by a column that says `train`, `valid` or `test`."""
    order: list[Split] = ["train", "valid", "test"]
    parts: list[list[int]] = [[] for _ in order]
    for i, row in enumerate(rows):
        if row[column] not in SPLIT_NAMES:
            raise ValueError(
                f"Expected train, valid or test in {column}, but got {row[column]!r} ({row_location(table, i)})"
            )
        parts[order.index(SPLIT_NAMES[row[column]])].append(i)
    if not parts[0]:
        held = ", ".join(dict.fromkeys(row[column] for row in rows))
        raise ValueError(f"Expected {table} to hold training images, but {column} says {held} alone")
    return parts
