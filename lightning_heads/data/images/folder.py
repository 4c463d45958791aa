"""Data module of images in one folder per class."""

import os
from collections.abc import Collection
from pathlib import Path

import torch

from ...utils.arguments import Unpack, forwards
from ..samples.folders import nfc, require_folder, subfolders
from ..samples.samples import Samples, hold_out, log_found
from ..samples.split_folders import Split, check_nested_splits, check_siblings, split_folders, split_of
from .datamodule import ImageData, ImageDataArgs, no_images_error
from .reading import find_images, warn_left_out


@forwards(ImageDataArgs, to=ImageData)
class ImageFolderData(ImageData):
    """Images in class folders: `root/train/<class>/*`, `root/valid/<class>/*` (and `root/test`), or `root/<class>/*`.

    Folders of splits may also be called `training`, `validation`, `val`, `dev` and `testing`, in any case. If `root`
    has folders of other names too, and none has folders in it, each is a class, whatever its name. Without a folder for
    validation or test, that fraction of the training images is held out, seeded and stratified by class. Hidden and
    empty folders and those of the system, such as `__MACOSX`, are left out.

    Args:
        root: Folder that contains the folders of the splits, or of the classes.
        valid_fraction: Fraction of the training images to hold out for validation, if there is no folder for it.
        test_fraction: Fraction of the training images to hold out for testing, if there is no folder for it.
        seed: Seed of the random split.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If there are no images, fewer than two classes, or a class without training images; if other folders
            of images lie beside those of the splits, or the folders of splits lie in a folder of `root`.
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
        predict_root = loading.get("predict_root")
        unlabeled = [] if predict_root is None else [predict_root]
        splits = class_split_folders(root, unlabeled)
        check_siblings(splits, find_images, unlabeled)
        train = splits.get("train", root)
        class_names = class_folders(train)
        found = class_samples(root, splits, class_names)
        if len(class_names) < 2:
            folder = subfolders(train)[0]
            inner = ", ".join(class_folders(folder))
            raise ValueError(
                f"Expected a folder for each of two classes or more in {train}, but got {class_names}"
                + (f"; if its folders are the classes ({inner}), pass {folder}" if inner else "")
            )
        if empty := sorted(set(range(len(class_names))) - set(found["train"].tolist())):
            names = ", ".join(class_names[i] for i in empty)
            raise ValueError(f"Expected training images of every class in {train}, but there are none of {names}")
        samples = hold_out(found, valid_fraction, test_fraction, seed, found["train"].tolist())
        super().__init__(
            samples,
            class_names,
            **loading,
        )
        log_found(samples, root, class_names)
        warn_left_out(root)


def class_split_folders(root: Path, unlabeled: Collection[str | Path] = ()) -> dict[Split, Path]:
    """Returns the folder of each split that has one, in which there are folders of classes.

    It is empty if there are no such folders, or if folders with names of splits and others have only images in them,
    which are classes then.

    Args:
        root: The folder.
        unlabeled: Folders of unlabeled images, which are neither classes nor, without folders in them, splits.

    Raises:
        FileNotFoundError: If there is no folder `root`.
        ValueError: If there are folders of splits, but none for training, or two for one split.
    """
    require_folder(root, "root")
    folders = subfolders(root)
    named = [folder for folder in folders if split_of(folder.name)]
    if not named:
        return {}
    without_classes = {os.path.abspath(path) for path in unlabeled}
    others = [folder for folder in folders if folder not in named and find_images(folder)]
    if others and not any(subfolders(path) or os.path.abspath(path) in without_classes for path in (*named, *others)):
        return {}
    return {
        split: folder
        for split, folder in split_folders(root).items()
        if split == "train" or subfolders(folder) or os.path.abspath(folder) not in without_classes
    }


def class_folders(folder: Path) -> list[str]:
    """Returns the names of the folders in a folder, sorted; see `subfolders`."""
    return sorted({nfc(path.name) for path in subfolders(folder)})


def class_samples(root: Path, splits: dict[Split, Path], class_names: list[str]) -> dict[Split, Samples]:
    """Finds the images in the folder of each class; their targets are the indices of the classes.

    Args:
        root: Folder of the data set.
        splits: Folder of each split that has one. Without any, all images are for training.
        class_names: Names of the classes.

    Raises:
        ValueError: If a split has no images, or folders of other classes, or there are splits in a folder of `root`.
    """
    found = {split: _images_of_classes(folder, class_names) for split, folder in (splits or {"train": root}).items()}
    if not splits:
        check_nested_splits(root, found["train"].paths)
    return found


def _images_of_classes(folder: Path, class_names: list[str]) -> Samples:
    index = {name: i for i, name in enumerate(class_names)}
    if unknown := [name for name in class_folders(folder) if name not in index]:
        raise ValueError(
            f"Expected the classes of {folder} among those of training ({', '.join(class_names)}), but it has "
            f"{', '.join(unknown)}"
        )
    paths, targets = [], []
    for path in sorted(subfolders(folder), key=lambda path: index[nfc(path.name)]):
        images = find_images(path)
        paths += images
        targets += [index[nfc(path.name)]] * len(images)
    if not paths and find_images(folder):
        raise ValueError(
            f"Expected a folder for each class in {folder}, but its images lie in {folder} itself; pass unlabeled "
            "images as `predict_root`, and a table of images to `ImageTableData`"
        )
    if not paths:
        raise no_images_error(folder)
    return Samples(paths, torch.tensor(targets))
