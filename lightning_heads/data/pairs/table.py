"""Pairs of images that a csv file lists with their classes."""

from pathlib import Path

from ...utils.arguments import Unpack, forwards
from ..images.table import classes_of
from ..samples.csv_table import paths_of, read_table, row_location, split_column
from ..samples.samples import Samples
from .datamodule import PairData, PairingArgs


@forwards(PairingArgs, to=PairData)
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
        valid_fraction: Share of the images for validation, where there is no `split`.
        test_fraction: Share of the images for testing, likewise.

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
        valid_fraction: float = 0.2,
        test_fraction: float = 0.0,
        **pairing: Unpack[PairingArgs],
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
            valid_fraction=0.0 if split else valid_fraction,
            test_fraction=0.0 if split else test_fraction,
            **pairing,
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
