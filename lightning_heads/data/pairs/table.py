"""Pairs of images that a csv file lists with their classes."""

from pathlib import Path
from typing import Literal

from torch import nn

from ..images.datamodule import Resize
from ..images.table import classes_of
from ..samples.csv_table import paths_of, read_table, row_location, split_column
from ..samples.samples import Samples
from .datamodule import PairData


class PairTableData(PairData):
    """Pairs of images, listed in a csv file with a header: a path, and the class.

    Validation and test may be of other classes than training, such as persons that a model has not met.

    Args:
        table: The csv file, a line an image. One whose lines are pairs is for `pairs`.
        root: Folder that the paths are relative to; the table's own by default.
        path: Column of the paths.
        label: Column of the class name.
        split: Column that says `train`, `valid` or `test`; else shares are set aside, seeded and stratified by class.
        delimiter: What separates the columns.
        same_fraction: See `PairData`.
        pairs: See `PairData`.
        hard_negative_fraction: See `PairData`.
        neighbors: See `PairData`.
        num_neighbors: See `PairData`.
        valid_fraction: Share of the images for validation, where there is no `split`.
        test_fraction: Share of the images for testing, likewise.
        seed: See `PairData`.
        predict_pairs: See `PairData`.
        image_size: See `ImageData`.
        batch_size: Pairs a batch.
        num_workers: See `ImageData`.
        resize: See `ImageData`.
        augmentation: See `ImageData`.
        augment: See `ImageData`.
        channels: See `ImageData`.
        on_error: See `PairData`.

    Raises:
        FileNotFoundError: If the table or a list is missing, or an image that they name.
        ValueError: If a column is missing, a class is empty, or there are no pairs of the images; see `PairData`.
    """

    def __init__(
        self,
        table: str | Path,
        root: str | Path | None = None,
        *,
        path: str = "path",
        label: str = "label",
        split: str | None = None,
        delimiter: str = ",",
        same_fraction: float = 0.5,
        pairs: str | Path | None = None,
        hard_negative_fraction: float = 0.0,
        neighbors: str | Path | None = None,
        num_neighbors: int = 10,
        valid_fraction: float = 0.2,
        test_fraction: float = 0.0,
        seed: int = 42,
        predict_pairs: str | Path | None = None,
        image_size: int | tuple[int, int] = 224,
        batch_size: int = 64,
        num_workers: int | None = None,
        resize: Resize = "crop",
        augmentation: nn.Module | None = None,
        augment: bool = True,
        channels: int = 3,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        table = Path(table)
        root = table.parent if root is None else Path(root)
        rows = read_table(table, delimiter, [path, label, *([split] if split else [])])
        image_classes, targets = classes_of(rows, label, table)
        everything = Samples(paths_of(rows, root, path, table), targets)
        _check_once(everything.paths, table)
        super().__init__(
            everything.split(split_column(rows, split, table)) if split else {"train": everything},
            image_classes,
            root,
            same_fraction=same_fraction,
            pairs=pairs,
            hard_negative_fraction=hard_negative_fraction,
            neighbors=neighbors,
            num_neighbors=num_neighbors,
            valid_fraction=0.0 if split else valid_fraction,
            test_fraction=0.0 if split else test_fraction,
            seed=seed,
            predict_pairs=predict_pairs,
            image_size=image_size,
            batch_size=batch_size,
            num_workers=num_workers,
            resize=resize,
            augmentation=augmentation,
            augment=augment,
            channels=channels,
            on_error=on_error,
        )


def _check_once(paths: list[Path], table: Path) -> None:
    """Raises ValueError where an image is listed twice, and could be in two splits."""
    lines: dict[Path, int] = {}
    for i, path in enumerate(paths):
        if lines.setdefault(path, i) != i:
            raise ValueError(
                f"Expected each image once, but {path} is listed twice ({row_location(table, lines[path])} and "
                f"{row_location(table, i)})"
            )
