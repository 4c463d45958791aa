"""Data module of images in one folder per class."""

from pathlib import Path

import torch

from ...utils.arguments import Unpack, forwards
from ..samples.samples import Samples, hold_out
from ..samples.split_folders import split_folders
from .datamodule import ImageData, ImageDataArgs, no_images_error
from .reading import find_images


@forwards(ImageDataArgs, to=ImageData)
class ImageFolderData(ImageData):
    """Images in class folders: `root/train/<class>/*`, `root/valid/<class>/*` (and `root/test`), or `root/<class>/*`.

    Without a folder for validation or test, that fraction of the training images is held out, seeded and stratified by
    class.

    Args:
        root: Folder that contains the folders of the splits, or of the classes.
        valid_fraction: Fraction of the training images to hold out for validation, if there is no folder for it.
        test_fraction: Fraction of the training images to hold out for testing, if there is no folder for it.
        seed: Seed of the random split.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If there are no images, fewer than two classes, or a class without training images.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        valid_fraction: float = 0.2,
        test_fraction: float = 0.0,
        seed: int = 42,
        **loading: Unpack[ImageDataArgs],
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
            **loading,
        )


def class_folders(folder: Path) -> list[str]:
    """Returns the names of the folders in a folder, sorted, without hidden ones."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def class_samples(folder: Path, class_names: list[str]) -> Samples:
    """Finds the images in the folder of each class; their targets are the indices of the classes.

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
