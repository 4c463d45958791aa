"""Data module of degraded images as inputs and originals as targets, for image restoration."""

from pathlib import Path
from typing import Any, Literal, TypedDict, cast

import torch
from torch import nn
from torch.utils.data import DataLoader

from ...utils.arguments import Unpack, forwards
from ..images.datamodule import ImageData, Resize, no_images_error
from ..images.dataset import ImageDataset
from ..images.opening import ImageReadError, open_image
from ..images.reading import find_images, image_name, images_by_name, verify, warn_left_out
from ..samples.folders import require_folder
from ..samples.samples import Samples, hold_out, log_found
from ..samples.split_folders import Split, check_nested_splits, check_siblings, split_folders
from ..transforms.augment import AugTransforms
from ..transforms.degrade import Degradation
from ..transforms.resize import ResizeTo
from .dataset import RestorationDataset

_CHANNEL_NAMES = {1: ["gray"], 3: ["red", "green", "blue"], 4: ["red", "green", "blue", "alpha"]}


class RestorationLoadingArgs(TypedDict, total=False):
    """Arguments of `ImageData` that `RestorationData` passes on to it."""

    num_workers: int | None
    augment: bool
    value_range: tuple[float, float] | None
    max_pixels: int | None
    on_error: Literal["raise", "skip"]


@forwards(RestorationLoadingArgs, to=ImageData)
class RestorationData(ImageData):
    """Degraded images and their originals for restoration, from a folder of photographs or two parallel folders.

    Photographs are found in `root` recursively. Those below `root/train`, `root/valid` and `root/test` are of that
    split; these folders may also be called `training`, `validation`, `val`, `dev` and `testing`, in any case. Without a
    folder for validation or test, that fraction of the training images is held out, seeded. A target is a photograph,
    cropped and in training augmented. Its input is that target degraded by `degradation`: at random in training, and
    always alike for an image of validation or test.

    >>> data = RestorationData("photos", degradation=Downscale(4))  # doctest: +SKIP

    Args:
        root: Folder of the photographs; with `targets`, of the degraded images.
        degradation: Module that computes an input from a target, float `(c, h, w)` in 0..1, of the same height and
            width: `Downscale`, `Crappify`, `Grayscale`, `Noise`, or your own, which must draw random numbers from
            torch's generator. With `torch.nn.Identity` inputs equal targets, for example to learn a style.
        targets: Folder of targets, in place of a degradation: one for each image in `root`, at the same relative path
            except for the suffix, and of the same size.
        valid_fraction: Fraction of the training images to hold out for validation, if there is no folder for it.
        test_fraction: Fraction of the training images to hold out for testing, if there is no folder for it.
        seed: Seed of the random split, and of the random numbers in the degradation of validation and test images.
        whole: Whether validation and test images are whole and one per batch, as images to predict always are.
            Otherwise they are cropped at the center; if some are smaller than `image_size`, there is one per batch too.
        predict_root: Folder of degraded images to restore, searched recursively, or one image file; for
            super-resolution they are upscaled first, for colorization converted to luminance. By default the inputs of
            the test images.
        image_size: Height and width of a training crop, in pixels.
        batch_size: Images in a batch.
        resize: How images are resized to `image_size`: `none` crops without scaling, `crop` scales an image to cover
            that size and crops the rest, `squish` changes the aspect ratio, and `pad` scales an image to fit into it.
            Sides that are shorter are padded by mirroring in training, and not padded in evaluation, so that metrics
            are of real pixels only.
        augmentation: Module that augments a training image before it is degraded, or with `targets` input and target
            alike, as torchvision's transforms do with several images. By default a horizontal flip, which does not
            blur.
        channels: Channels of the photographs: 1 for grayscale, 3 for RGB, 4 for RGB with transparency.

    Raises:
        FileNotFoundError: If the folder does not exist, or an image has no target.
        ValueError: If there are no images, or both or neither of `degradation` and `targets` are given; if other
            folders of images lie beside those of the splits, or the folders of splits lie in a folder of `root`.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        degradation: nn.Module | None = None,
        targets: str | Path | None = None,
        valid_fraction: float = 0.2,
        test_fraction: float = 0.0,
        seed: int = 42,
        whole: bool = False,
        predict_root: str | Path | None = None,
        image_size: int | tuple[int, int] = 128,
        batch_size: int = 16,
        resize: Resize = "none",
        augmentation: nn.Module | None = None,
        channels: int = 3,
        **loading: Unpack[RestorationLoadingArgs],
    ) -> None:
        if (degradation is None) == (targets is None):
            raise ValueError(
                f"Expected either `degradation` or `targets`, but got {'neither' if targets is None else 'both'}; with "
                "`degradation=torch.nn.Identity()` inputs equal targets"
            )
        if channels not in _CHANNEL_NAMES:
            raise ValueError(f"Expected `channels` to be 1, 3 or 4, but got {channels}")
        used = [Path(path) for path in (targets, predict_root) if path is not None]
        found = _find_samples(Path(root), None if targets is None else Path(targets), used)
        super().__init__(
            hold_out(found, valid_fraction, test_fraction, seed),
            _CHANNEL_NAMES[channels],
            predict_root=predict_root,
            image_size=image_size,
            batch_size=batch_size,
            images_per_class=None,
            resize=resize,
            augmentation=augmentation or AugTransforms(max_rotate=0, max_zoom=1, max_lighting=0, max_warp=0),
            channels=channels,
            **loading,
        )
        self.degradation, self.seed, self.whole = degradation, seed, whole
        log_found(self.samples, Path(root))
        warn_left_out(Path(root))

    @property
    def num_outputs(self) -> int:
        """Number of channels of a target."""
        return self.channels

    @property
    def in_channels(self) -> int:
        """Number of channels of an input."""
        if self.degradation is None:
            return self.channels
        with torch.random.fork_rng(devices=[]):
            return len(self.degradation(torch.zeros(self.channels, *self.image_size)))

    def predict_dataloader(self) -> DataLoader[Any]:
        if self.predict_root is None:
            self.setup("test")
            return self._loader(self._dataset("test", whole=True))
        prepare = self.degradation.prepare if isinstance(self.degradation, Degradation) else None
        size = ResizeTo(self.image_size, "none", whole=True)
        return self._loader(ImageDataset(self._predict_paths(), None, size=size, augment=prepare, **self.reading))

    def _dataset(self, split: Split, random: bool = False, whole: bool | None = None) -> RestorationDataset:
        samples = self._split(split)
        targets = None if self.degradation is not None else cast(list[Path], samples.targets)
        whole = not random and (self.whole if whole is None else whole)
        return RestorationDataset(
            samples.paths,
            targets,
            size=ResizeTo(self.image_size, self.resize, random=random, whole=whole, fill="mirror" if random else None),
            augment=self.augmentation if random else None,
            degradation=self.degradation,
            seed=None if random else self.seed,
            **self.reading,
        )

    def _loader(self, dataset: Any) -> DataLoader[Any]:
        batch_size = self.batch_size if _have_one_size(dataset.size, dataset.paths) else 1
        return DataLoader(dataset, batch_size=batch_size, **self._workers())

    def _errors(self, paths: list[Path], split: Split | Literal["predict"]) -> dict[int, ImageReadError]:
        if self.degradation is not None or split == "predict":
            return super()._errors(paths, split)
        return verify(len(paths), self._dataset(split).read, self.num_workers)


def _have_one_size(size: ResizeTo, paths: list[Path]) -> bool:
    """Returns whether all images have the same size after resizing."""
    if size.whole:
        return False
    if size.fill is not None or size.method in ("crop", "squish"):
        return True
    return size.method == "none" and all(_short_side(path) >= max(size.size) for path in paths)


def _short_side(path: Path) -> float:
    """Returns the shorter side of an image in pixels, without decoding it."""
    try:
        with open_image(path) as file:
            return float(min(file.size))
    except ImageReadError:  # an error is raised when the image is read
        return float("inf")


def _find_samples(root: Path, targets: Path | None, used: list[Path]) -> dict[Split, Samples]:
    """Finds the images of each split and their targets, which are the images themselves if `targets` is None.

    Folders of files in `used` may lie beside those of the splits.
    """
    require_folder(root, "root")
    splits = split_folders(root)
    check_siblings(splits, find_images, used)
    folders = splits or {"train": root}
    found = {split: find_images(folder) for split, folder in folders.items()}
    for split, paths in found.items():
        if not paths:
            raise no_images_error(folders[split])
    if not splits:
        check_nested_splits(root, found["train"])
    if targets is None:
        return {split: Samples(paths, paths) for split, paths in found.items()}
    require_folder(targets, "targets")
    by_name = images_by_name(targets)
    return {
        split: Samples(paths, [_find_target(path, root, targets, by_name) for path in paths])
        for split, paths in found.items()
    }


def _find_target(path: Path, root: Path, targets: Path, by_name: dict[Path, Path]) -> Path:
    name = image_name(path, root)
    if name not in by_name:
        raise FileNotFoundError(f"Expected a target for {path}, but {targets} has no image {name} of any suffix")
    return by_name[name]
