"""Data module of images listed in a csv file."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...utils.arguments import Unpack, forwards
from ..samples.csv_table import Rows, paths_of, read_table, row_location, split_column
from ..samples.samples import Samples, hold_out
from ..samples.split_folders import Split
from .datamodule import ImageData, ImageDataArgs


@forwards(ImageDataArgs, to=ImageData)
class ImageTableData(ImageData):
    """Images listed in a csv file with a header: a column of paths, and columns of targets.

    Exactly one of `label`, `labels`, `probabilities` and `values` names the columns of the targets.

    Args:
        table: The csv file, one row per image.
        root: Folder that the paths are relative to; by default that of the table.
        path: Column of the paths.
        label: Column of the class name. A target is a class index.
        labels: Columns of 0 and 1, one per class, or one column of class names separated by `separator`. A target is
            `(num_classes,)` of 0 and 1, for tasks with `multilabel`.
        probabilities: Columns of class probabilities, one per class, which sum to 1. A target is `(num_classes,)`.
        values: Columns of numbers, for regression. A target is `(len(values),)`.
        separator: Separator of class names if `labels` is one column.
        delimiter: Character that separates the columns of the csv file.
        split: Column of the split of each image: `train`, `valid` or `test`. By default the split is random.
        valid_fraction: Fraction of the images to hold out for validation, if `split` is not given.
        test_fraction: Fraction of the images to hold out for testing, if `split` is not given.
        stratify: Columns whose combinations of values the random split is stratified by; by default `label`.
        seed: Seed of the random split.

    Raises:
        FileNotFoundError: If the table or an image that it lists is missing.
        ValueError: If a column is missing, a cell is empty or not a number, or a class has no training images.
    """

    def __init__(
        self,
        table: str | Path,
        root: str | Path | None = None,
        *,
        path: str = "path",
        label: str | None = None,
        labels: Sequence[str] | None = None,
        probabilities: Sequence[str] | None = None,
        values: Sequence[str] | None = None,
        separator: str = " ",
        delimiter: str = ",",
        split: str | None = None,
        valid_fraction: float = 0.2,
        test_fraction: float = 0.0,
        stratify: Sequence[str] | None = None,
        seed: int = 42,
        **loading: Unpack[ImageDataArgs],
    ) -> None:
        table = Path(table)
        if sum(kind is not None for kind in (label, labels, probabilities, values)) != 1:
            raise ValueError("Expected exactly one of `label`, `labels`, `probabilities` and `values`")
        for argument, columns in (("labels", labels), ("probabilities", probabilities), ("values", values)):
            if isinstance(columns, str):
                raise TypeError(f"Expected `{argument}` to be a list of columns, but got the string {columns!r}")
        if not separator:
            raise ValueError("Expected `separator` to be a character, but got an empty string")
        numbers = [*(probabilities or values or ())]
        by = [*(stratify or ([label] if label else []))]
        used = [path, *([label] if label else []), *(labels or []), *numbers, *([split] if split else []), *by]
        rows = read_table(table, delimiter, used)
        paths = paths_of(rows, table.parent if root is None else Path(root), path, table)

        if label is not None:
            class_names, targets = classes_of(rows, label, table)
        elif labels is not None:
            class_names, targets = _multilabel(rows, [*labels], separator, table)
        else:
            class_names, targets = numbers, _numbers(rows, numbers, table)
        if probabilities is not None:
            _check_probabilities(targets, table)

        all_samples = Samples(paths, targets)
        if split is None:
            keys = [tuple(row[column] for column in by) for row in rows]
            samples = hold_out({"train": all_samples}, valid_fraction, test_fraction, seed, keys)
        else:
            samples = all_samples.split(split_column(rows, split, table))
        if label is not None:
            _check_seen(samples, class_names, table)
        super().__init__(
            samples,
            class_names,
            **loading,
        )


def classes_of(rows: Rows, column: str, table: Path) -> tuple[list[str], Tensor]:
    """Returns the class names in a column, sorted, and the class index of each row, `(n,)`.

    Raises:
        ValueError: If a cell is empty, or there are fewer than two classes.
    """
    for i, row in enumerate(rows):
        if not row[column]:
            raise ValueError(f"Expected a class in the column {column}, but it is empty ({row_location(table, i)})")
    class_names = sorted({row[column] for row in rows})
    if len(class_names) < 2:
        raise ValueError(f"Expected two classes or more in the column {column} of {table}, but got {class_names}")
    return class_names, torch.tensor([class_names.index(row[column]) for row in rows])


def _multilabel(rows: Rows, columns: list[str], separator: str, table: Path) -> tuple[list[str], Tensor]:
    if len(columns) > 1:
        targets = _numbers(rows, columns, table)
        bad = ((targets != 0) & (targets != 1)).any(dim=1).nonzero().flatten().tolist()
        if bad:
            raise ValueError(f"Expected 0 or 1 in the columns {', '.join(columns)} ({row_location(table, bad[0])})")
        return columns, targets
    named = [{name for name in row[columns[0]].split(separator) if name} for row in rows]
    class_names = sorted(set().union(*named))
    if not class_names:
        raise ValueError(f"Expected classes in the column {columns[0]} of {table}, but it is empty throughout")
    return class_names, torch.tensor([[float(name in names) for name in class_names] for names in named])


def _numbers(rows: Rows, columns: list[str], table: Path) -> Tensor:
    def number(i: int, row: dict[str, str], column: str) -> float:
        try:
            value = float(row[column])
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(
                f"Expected a number in the column {column}, but got {row[column]!r} ({row_location(table, i)})"
            )
        return value

    return torch.tensor([[number(i, row, column) for column in columns] for i, row in enumerate(rows)])


def _check_probabilities(targets: Tensor, table: Path) -> None:
    bad = ((targets < 0).any(dim=1) | ((targets.sum(dim=1) - 1).abs() > 1e-2)).nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f"Expected probabilities of at least 0 that sum to 1, but got {targets[bad[0]].tolist()} "
            f"({row_location(table, bad[0])})"
        )


def _check_seen(samples: dict[Split, Samples], class_names: list[str], table: Path) -> None:
    seen = set(samples["train"].tolist())
    for name, part in samples.items():
        if unseen := sorted({class_names[i] for i in set(part.tolist()) - seen}):
            raise ValueError(
                f"Expected the {name} classes of {table} among those of training, which has no {', '.join(unseen)}"
            )
