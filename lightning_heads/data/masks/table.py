"""Images and masks listed in a csv file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from torch import nn

from ..images.datamodule import Resize
from ..samples.csv_table import paths_of, read_table, split_column
from ..samples.samples import Samples, hold_out
from .codes import Code, Codes, MaskCodes
from .datamodule import MaskData


class MaskTableData(MaskData):
    """Images and masks for segmentation, listed in a csv file with a header.

    Args:
        table: The csv file.
        root: Folder that the paths are relative to; the table's own by default.
        path: Column of the images.
        mask: Column of the masks; or one for each class, in the order of `codes`, where a pixel has any number of them.
        codes: Names of the classes, where masks hold class indices, or each name with its value or color; see
            `MaskCodes`.
        ignore: Values or colors of pixels whose class is unknown.
        ignore_index: See `MaskData`.
        delimiter: What separates the columns.
        split: Column that says `train`, `valid` or `test`; else shares are set aside at random.
        valid_fraction: Share of the images for validation, where there is no `split`.
        test_fraction: Share of the images for testing, likewise.
        seed: Seed of that split.
        predict_root: See `ImageData`.
        image_size: See `ImageData`.
        batch_size: See `ImageData`.
        num_workers: See `ImageData`.
        resize: See `MaskData`.
        augmentation: See `MaskData`.
        augment: See `ImageData`.
        channels: See `ImageData`.
        on_error: See `MaskData`.

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
        ignore_index: int | None = 255,
        delimiter: str = ",",
        split: str | None = None,
        valid_fraction: float = 0.2,
        test_fraction: float = 0.0,
        seed: int = 42,
        predict_root: str | Path | None = None,
        image_size: int | tuple[int, int] = 224,
        batch_size: int = 16,
        num_workers: int | None = None,
        resize: Resize = "crop",
        augmentation: nn.Module | None = None,
        augment: bool = True,
        channels: int = 3,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        table = Path(table)
        columns = [mask] if isinstance(mask, str) else [*mask]
        reads = MaskCodes(codes, ignore, multilabel=not isinstance(mask, str))
        if reads.multilabel and len(columns) != len(reads.class_names):
            raise ValueError(f"Expected `mask` to be a column for each of {reads.class_names}, but got {columns}")
        rows = read_table(table, delimiter, [path, *columns, *([split] if split else [])])
        root = table.parent if root is None else Path(root)
        masks = [tuple(root / row[column] for column in columns) for row in rows]
        everything = Samples(paths_of(rows, root, path, table), masks if reads.multilabel else [m for (m,) in masks])
        if split is None:
            samples = hold_out({"train": everything}, valid_fraction, test_fraction, seed)
        else:
            samples = everything.split(split_column(rows, split, table))
        super().__init__(
            samples,
            reads,
            ignore_index=ignore_index,
            predict_root=predict_root,
            image_size=image_size,
            batch_size=batch_size,
            num_workers=num_workers,
            resize=resize,
            augmentation=augmentation,
            augment=augment,
            channels=channels,
            on_error=on_error,
        )
