"""Images in one folder a class."""

from pathlib import Path
from typing import Literal

import torch
from torch import nn

from ..samples.samples import Samples, hold_out
from ..samples.split_folders import split_folders
from .datamodule import ImageData, Resize, no_images_error
from .reading import find_images


class ImageFolderData(ImageData):
    """Classes of images: `root/train/<class>/*` and `root/valid/<class>/*` (and `root/test`), or `root/<class>/*`.

    Without a validation folder, a share of the training images is set aside, seeded and stratified by class.

    Args:
        root: The folder.
        valid_fraction: Share of the images for validation, where there is no folder for it.
        test_fraction: Share of the images for testing, likewise.
        seed: Seed of that split.
        predict_root: See `ImageData`.
        image_size: See `ImageData`.
        batch_size: See `ImageData`.
        images_per_class: See `ImageData`.
        num_workers: See `ImageData`.
        resize: See `ImageData`.
        augmentation: See `ImageData`.
        augment: See `ImageData`.
        channels: See `ImageData`.
        on_error: See `ImageData`.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there are no images, fewer than two classes, or classes that training lacks.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        valid_fraction: float = 0.2,
        test_fraction: float = 0.0,
        seed: int = 42,
        predict_root: str | Path | None = None,
        image_size: int | tuple[int, int] = 224,
        batch_size: int = 64,
        images_per_class: int | None = None,
        num_workers: int | None = None,
        resize: Resize = "crop",
        augmentation: nn.Module | None = None,
        augment: bool = True,
        channels: int = 3,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        root = Path(root)
        folders = split_folders(root)
        train = folders["train"]
        class_names = class_folders(train)
        found = {split: class_samples(folder, class_names) for split, folder in folders.items()}
        if len(class_names) < 2:
            raise ValueError(f"Expected a folder for each of two classes or more in {train}, but got {class_names}")
        if empty := sorted(set(range(len(class_names))) - set(found["train"].tolist())):
            names = ", ".join(class_names[i] for i in empty)
            raise ValueError(f"Expected training images of every class in {train}, but there are none of {names}")
        super().__init__(
            hold_out(found, valid_fraction, test_fraction, seed, found["train"].tolist()),
            class_names,
            predict_root=predict_root,
            image_size=image_size,
            batch_size=batch_size,
            images_per_class=images_per_class,
            num_workers=num_workers,
            resize=resize,
            augmentation=augmentation,
            augment=augment,
            channels=channels,
            on_error=on_error,
        )


def class_folders(folder: Path) -> list[str]:
    """Returns the names of the folders in a folder, sorted, without the hidden ones."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def class_samples(folder: Path, class_names: list[str]) -> Samples:
    """Finds the images of each class's folder, whose target is the index of the class.

    Raises:
        ValueError: If there are no images, or folders of other classes.
    """
    if unknown := [name for name in class_folders(folder) if name not in class_names]:
        raise ValueError(
            f"Expected the classes of {folder} among those of training ({', '.join(class_names)}), but it has "
            f"{', '.join(unknown)}"
        )
    paths, targets = [], []
    for target, name in enumerate(class_names):
        images = find_images(folder / name)
        paths += images
        targets += [target] * len(images)
    if not paths:
        raise no_images_error(folder)
    return Samples(paths, torch.tensor(targets))
