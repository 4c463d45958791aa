"""Data module of pairs of images that a csv file lists with their classes."""

from pathlib import Path

from ...utils.arguments import Unpack, forwards
from ..images.table import classes_of
from ..samples.csv_table import Table, paths_of, read_table, split_column
from ..samples.samples import Samples, log_found
from .datamodule import PairData, PairingArgs


@forwards(PairingArgs, to=PairData)
class PairTableData(PairData):
    """Pairs of images that a csv file with a header lists with their classes.

    Validation and test may have other classes than training, such as persons that the model has not seen.

    Args:
        table: The csv file, one row per image; a csv file of pairs is given as `pairs`.
        root: Folder that the paths are relative to; by default that of the table.
        path: Column of the paths.
        label: Column of the class name.
        split: Column of the split of each image: `train`, `valid` or `test`; or of true and false, if it is named after
            a split, such as `is_valid`. By default the split is random and stratified by class.
        delimiter: Character that separates the columns of the csv file.
        valid_fraction: Fraction of the images to hold out for validation, if `split` is not given.
        test_fraction: Fraction of the images to hold out for testing, if `split` is not given.

    Raises:
        FileNotFoundError: If a csv file, or an image that it lists, is missing.
        ValueError: If a column is missing, a class is empty, or no pairs can be drawn from the images; see `PairData`.
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
        root = Path(table).parent if root is None else Path(root)
        listed = read_table(Path(table), delimiter, [path, label, *([split] if split else [])])
        image_classes, targets = classes_of(listed, label)
        all_samples = Samples(paths_of(listed, root, path), targets)
        _check_unique(all_samples.paths, listed)
        super().__init__(
            all_samples.split(split_column(listed, split)) if split else {"train": all_samples},
            image_classes,
            root,
            valid_fraction=0.0 if split else valid_fraction,
            test_fraction=0.0 if split else test_fraction,
            **pairing,
        )
        log_found(self.samples, listed.path, image_classes)


def _check_unique(paths: list[Path], table: Table) -> None:
    """Raises ValueError if an image is listed twice, since it could be in two splits."""
    lines: dict[Path, int] = {}
    for i, path in enumerate(paths):
        if lines.setdefault(path, i) != i:
            raise ValueError(
                f"Expected each image once, but {path} is listed twice ({table.location(lines[path])} and "
                f"{table.location(i)})"
            )
