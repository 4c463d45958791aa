"""Data module of images and masks listed in a csv file."""

from collections.abc import Sequence
from pathlib import Path

from ...utils.arguments import Unpack, forwards
from ..samples.csv_table import paths_of, read_table, split_column
from ..samples.folders import find_file
from ..samples.samples import Samples, hold_out, log_found
from .codes import Code, Codes, MaskCodes
from .datamodule import MaskData, MaskDataArgs


@forwards(MaskDataArgs, to=MaskData)
class MaskTableData(MaskData):
    """Images and masks for segmentation, listed in a csv file with a header.

    Args:
        table: The csv file, one row per image.
        root: Folder that the paths are relative to; by default that of the table.
        path: Column of the paths of the images.
        mask: Column of the paths of the masks; or a list of columns, one per class in the order of `codes`, for masks
            in which a pixel has any number of classes.
        codes: Names of the classes, or how many there are, if masks contain class indices; or a mapping from each name
            to its value, or to its color `[red, green, blue]`. With a mask per class, masks contain 0 and either 1 or
            255, or 0 (black) and the value or color that is given. `mask_values` counts the values in masks.
        ignore: Values or colors of pixels whose class is unknown; their target is `ignore_index`.
        delimiter: Character that separates the columns of the csv file.
        split: Column of the split of each image: `train`, `valid` or `test`; or of true and false, if it is named after
            a split, such as `is_valid`. By default the split is random.
        valid_fraction: Fraction of the images to hold out for validation, if `split` is not given.
        test_fraction: Fraction of the images to hold out for testing, if `split` is not given.
        seed: Seed of the random split.

    Raises:
        FileNotFoundError: If the table, or an image or a mask that it lists, is missing.
        ValueError: If a column is missing, or there are no training images.
    """

    def __init__(
        self,
        table: str | Path,
        root: str | Path | None = None,
        *,
        path: str = "path",
        mask: str | Sequence[str] = "mask",
        codes: Codes,
        ignore: Sequence[Code] = (),
        delimiter: str = ",",
        split: str | None = None,
        valid_fraction: float = 0.2,
        test_fraction: float = 0.0,
        seed: int = 42,
        **loading: Unpack[MaskDataArgs],
    ) -> None:
        columns = [mask] if isinstance(mask, str) else [*mask]
        mask_codes = MaskCodes(codes, ignore, multilabel=not isinstance(mask, str))
        if mask_codes.multilabel and len(columns) != len(mask_codes.class_names):
            raise ValueError(f"Expected `mask` to be a column for each of {mask_codes.class_names}, but got {columns}")
        listed = read_table(Path(table), delimiter, [path, *columns, *([split] if split else [])])
        root = listed.path.parent if root is None else Path(root)
        masks = [tuple(find_file(root / row[column]) for column in columns) for row in listed.rows]
        all_samples = Samples(paths_of(listed, root, path), masks if mask_codes.multilabel else [m for (m,) in masks])
        if split is None:
            samples = hold_out({"train": all_samples}, valid_fraction, test_fraction, seed)
        else:
            samples = all_samples.split(split_column(listed, split))
        super().__init__(
            samples,
            mask_codes,
            **loading,
        )
        log_found(self.samples, listed.path)
