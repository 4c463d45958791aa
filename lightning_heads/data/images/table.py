"""Data module of images listed in a csv file."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...utils.arguments import Unpack, forwards
from ..samples.csv_table import BOOLEANS, Table, paths_of, read_table, split_column
from ..samples.folders import nfc
from ..samples.samples import Samples, hold_out, log_found
from ..samples.split_folders import Split
from .datamodule import ImageData, ImageDataArgs


@forwards(ImageDataArgs, to=ImageData)
class ImageTableData(ImageData):
    """Images listed in a csv file with a header: a column of paths, and columns of targets.

    Exactly one of `label`, `labels`, `probabilities` and `values` names the columns of the targets. Blanks around
    cells, labels and separators are ignored. In columns of numbers, true and yes are 1, false and no are 0, in any
    case.

    Args:
        table: The csv file, one row per image.
        root: Folder that the paths are relative to; by default that of the table.
        path: Column of the paths.
        label: Column of the class name. A target is a class index.
        labels: Columns of 0 and 1, one per class, or one column of class names separated by `separator`. A target is
            `(num_classes,)` of 0 and 1, for tasks with `multilabel`. One column of true and false is one class.
        probabilities: Columns of class probabilities, one per class, which sum to 1. A target is `(num_classes,)`.
        values: Columns of numbers, for regression. A target is `(len(values),)`.
        separator: Separator of class names if `labels` is one column.
        delimiter: Character that separates the columns of the csv file.
        split: Column of the split of each image: `train`, `valid` or `test`; or of true and false, if it is named after
            a split, such as `is_valid`. By default the split is random.
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
        listed = read_table(Path(table), delimiter, used)
        paths = paths_of(listed, listed.path.parent if root is None else Path(root), path)

        if label is not None:
            class_names, targets = classes_of(listed, label)
        elif labels is not None:
            class_names, targets = _multilabel(listed, [*labels], separator)
        else:
            class_names, targets = numbers, _numbers(listed, numbers)
        if probabilities is not None:
            _check_probabilities(targets, listed)

        all_samples = Samples(paths, targets)
        if split is None:
            keys = [tuple(nfc(row[column]) for column in by) for row in listed.rows]
            samples = hold_out({"train": all_samples}, valid_fraction, test_fraction, seed, keys)
        else:
            samples = all_samples.split(split_column(listed, split))
        if label is not None:
            _check_seen(samples, class_names, listed.path)
        super().__init__(
            samples,
            class_names,
            **loading,
        )
        log_found(samples, listed.path, class_names if label or labels else ())


def classes_of(table: Table, column: str) -> tuple[list[str], Tensor]:
    """Returns the class names in a column, sorted, and the class index of each row, `(n,)`.

    Raises:
        ValueError: If a cell is empty, or there are fewer than two classes.
    """
    labels = [nfc(cell) for cell in table.column(column)]
    for i, label in enumerate(labels):
        if not label:
            raise ValueError(f"Expected a class in the column {column}, but it is empty ({table.location(i)})")
    index = {name: i for i, name in enumerate(sorted({*labels}))}
    if len(index) < 2:
        raise ValueError(f"Expected two classes or more in the column {column} of {table.path}, but got {[*index]}")
    return [*index], torch.tensor([index[label] for label in labels])


def _multilabel(table: Table, columns: list[str], separator: str) -> tuple[list[str], Tensor]:
    if len(columns) > 1 or all(cell.lower() in ("true", "false") for cell in table.column(columns[0])):
        targets = _numbers(table, columns)
        bad = ((targets != 0) & (targets != 1)).any(dim=1).nonzero().flatten().tolist()
        if bad:
            raise ValueError(f"Expected 0 or 1 in the columns {', '.join(columns)} ({table.location(bad[0])})")
        return columns, targets
    separator = separator.strip() or separator
    named = [{nfc(name.strip()) for name in cell.split(separator)} - {""} for cell in table.column(columns[0])]
    index = {name: i for i, name in enumerate(sorted(set().union(*named)))}
    if not index:
        raise ValueError(f"Expected classes in the column {columns[0]} of {table.path}, but it is empty throughout")
    targets = torch.zeros(len(named), len(index))
    targets[tuple(torch.tensor([(i, index[name]) for i, names in enumerate(named) for name in names]).T)] = 1
    return [*index], targets


def _numbers(table: Table, columns: list[str]) -> Tensor:
    def number(i: int, column: str) -> float:
        cell = table.rows[i][column]
        if cell.lower() in BOOLEANS:
            return float(BOOLEANS[cell.lower()])
        try:
            value = float(cell)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"Expected a number in the column {column}, but got {cell!r} ({table.location(i)})")
        return value

    return torch.tensor([[number(i, column) for column in columns] for i in range(len(table.rows))])


def _check_probabilities(targets: Tensor, table: Table) -> None:
    bad = ((targets < 0).any(dim=1) | ((targets.sum(dim=1) - 1).abs() > 1e-2)).nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f"Expected probabilities of at least 0 that sum to 1, but got {targets[bad[0]].tolist()} "
            f"({table.location(bad[0])})"
        )


def _check_seen(samples: dict[Split, Samples], class_names: list[str], table: Path) -> None:
    seen = set(samples["train"].tolist())
    for name, part in samples.items():
        if unseen := sorted({class_names[i] for i in set(part.tolist()) - seen}):
            raise ValueError(
                f"Expected the {name} classes of {table} among those of training, which has no {', '.join(unseen)}"
            )
