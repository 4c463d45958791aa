"""Pairs of images that lie in one folder a class."""

from pathlib import Path
from typing import Literal

from torch import nn

from ..images.datamodule import Resize
from ..images.folder import class_folders, class_samples
from ..samples.split_folders import split_folders
from .datamodule import PairData


class PairFolderData(PairData):
    """Pairs of images in one folder a class: `root/train/<class>/*` and `root/valid/<class>/*`, or `root/<class>/*`.

    Without a validation folder, a share of the images is set aside, seeded and stratified by class. Validation and test
    may be of other classes than training, such as persons that a model has not met.

    Args:
        root: The folder.
        same_fraction: See `PairData`.
        pairs: See `PairData`.
        hard_negative_fraction: See `PairData`.
        neighbors: See `PairData`.
        num_neighbors: See `PairData`.
        valid_fraction: Share of the images for validation, where there is no folder for it.
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
        FileNotFoundError: If there is no such folder or list, or an image of a list is missing.
        ValueError: If there are no images, or no pairs of them; see `PairData`.
    """

    def __init__(
        self,
        root: str | Path,
        *,
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
        root = Path(root)
        folders = split_folders(root)
        image_classes = sorted({name for folder in folders.values() for name in class_folders(folder)})
        super().__init__(
            {split: class_samples(folder, image_classes) for split, folder in folders.items()},
            image_classes,
            root,
            same_fraction=same_fraction,
            pairs=pairs,
            hard_negative_fraction=hard_negative_fraction,
            neighbors=neighbors,
            num_neighbors=num_neighbors,
            valid_fraction=valid_fraction,
            test_fraction=test_fraction,
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
