"""Image-to-image training data made from photographs."""

from pathlib import Path
from typing import Any, Literal, TypedDict, cast

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from ...utils.arguments import Unpack, forwards
from ..images.datamodule import ImageData, Resize, no_images_error
from ..images.dataset import ImageDataset
from ..images.reading import ImageReadError, find_images, images_by_name, verify
from ..samples.samples import Samples, hold_out
from ..samples.split_folders import Split, require_folder, split_folders
from ..transforms.augment import AugTransforms
from ..transforms.degrade import Degradation
from ..transforms.resize import ResizeTo
from .dataset import RestorationDataset

_CHANNEL_NAMES = {1: ["gray"], 3: ["red", "green", "blue"], 4: ["red", "green", "blue", "alpha"]}


class RestorationLoadingArgs(TypedDict, total=False):
    """Arguments of `ImageData` that `RestorationData` passes on to it."""

    num_workers: int | None
    augment: bool
    on_error: Literal["raise", "skip"]


@forwards(RestorationLoadingArgs, to=ImageData)
class RestorationData(ImageData):
    """Bad images with the good ones to make of them: made from any folder of photographs, or two parallel folders.

    The photographs lie in `root`, however deep; those below `root/train`, `root/valid` and `root/test` are split as
    they lie, else shares are set aside, seeded. Each is cropped and augmented, and is the target; the input is what
    `degradation` makes of it: at random in training, and for a validation or test image always the same.

    >>> data = RestorationData("photos", degradation=Downscale(4))  # doctest: +SKIP

    Args:
        root: The folder.
        degradation: Makes an input of a target, float `(c, h, w)` in 0..1, keeping height and width: `Downscale`,
            `Crappify`, `Grayscale`, `Noise`, or a module of one's own, which draws from torch's generator. With
            `torch.nn.Identity` input and target are the same, as to learn a style.
        targets: In place of a degradation, a folder with a target for each image in `root`, of the same path within
            the folder but for the suffix, and of the same size.
        valid_fraction: Share of the images for validation, where there is no folder for it.
        test_fraction: Share of the images for testing, likewise.
        seed: Seed of that split, and of what the degradation of validation and test images draws.
        whole: Whether validation and test images are whole, in a batch each, as those to predict always are. Else they
            are cut at their center; where some are smaller than `image_size`, each is in a batch of its own too.
        predict_root: A folder of bad images, searched recursively, or one, to restore; for super-resolution they are
            enlarged first, for colorization their luminance is taken. By default the inputs of the test.
        image_size: Height and width of a training crop, in pixels.
        batch_size: Images in a batch.
        resize: How images are brought to `image_size`; see `ResizeTo`. By default crops of the photographs as they are.
            Smaller ones are mirrored in training, and left as they are in evaluation, which counts real pixels alone.
        augmentation: Changes a training image before it is degraded; of parallel folders, input and target alike, as
            torchvision's transforms change several images. By default a horizontal flip, which blurs nothing.
        channels: Channels of the photographs: 1, 3 or 4.

    Raises:
        FileNotFoundError: If there is no such folder, or an image has no target.
        ValueError: If there are no images, or not either `degradation` or `targets`.
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
                "Expected either `degradation` or `targets`; with torch.nn.Identity() inputs are the targets themselves"
            )
        if channels not in _CHANNEL_NAMES:
            raise ValueError(f"Expected `channels` to be 1, 3 or 4, but got {channels}")
        found = _samples(Path(root), None if targets is None else Path(targets))
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

    @property
    def num_outputs(self) -> int:
        """Channels of a target."""
        return self.channels

    @property
    def in_channels(self) -> int:
        """Channels of an input."""
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
        return self._loader(
            ImageDataset(self._predict_paths(), None, channels=self.channels, size=size, augment=prepare)
        )

    def _dataset(self, split: Split, random: bool = False, whole: bool | None = None) -> RestorationDataset:
        samples = self._split(split)
        targets = None if self.degradation is not None else cast(list[Path], samples.targets)
        whole = not random and (self.whole if whole is None else whole)
        return RestorationDataset(
            samples.paths,
            targets,
            channels=self.channels,
            size=ResizeTo(self.image_size, self.resize, random=random, whole=whole, fill="mirror" if random else None),
            augment=self.augmentation if random else None,
            degradation=self.degradation,
            seed=None if random else self.seed,
        )

    def _loader(self, dataset: Any) -> DataLoader[Any]:
        batch_size = self.batch_size if _one_size(dataset.size, dataset.paths) else 1
        return DataLoader(dataset, batch_size=batch_size, **self._workers())

    def _errors(self, paths: list[Path], split: Split | Literal["predict"]) -> dict[int, ImageReadError]:
        if self.degradation is not None or split == "predict":
            return super()._errors(paths, split)
        return verify(len(paths), self._dataset(split).read, self.num_workers)


def _one_size(size: ResizeTo, paths: list[Path]) -> bool:
    """Tells whether all images come out in one size."""
    if size.whole:
        return False
    if size.fill is not None or size.method in ("crop", "squish"):
        return True
    return size.method == "none" and all(_short_side(path) >= max(size.size) for path in paths)


def _short_side(path: Path) -> float:
    """Returns the shorter side of an image in pixels, without decoding it."""
    try:
        with Image.open(path) as file:
            return float(min(file.size))
    except Exception:  # is reported where it is read
        return float("inf")


def _samples(root: Path, targets: Path | None) -> dict[Split, Samples]:
    """Finds the images of each split's folder, or of the only one, and their targets: if there are no others, they."""
    folders = split_folders(root)
    found = {split: find_images(folder) for split, folder in folders.items()}
    for split, paths in found.items():
        if not paths:
            raise no_images_error(folders[split])
    if targets is None:
        return {split: Samples(paths, paths) for split, paths in found.items()}
    require_folder(targets, "targets")
    by_name = images_by_name(targets)
    return {
        split: Samples(paths, [_target(path, root, targets, by_name) for path in paths])
        for split, paths in found.items()
    }


def _target(path: Path, root: Path, targets: Path, by_name: dict[Path, Path]) -> Path:
    name = path.relative_to(root).with_suffix("")
    if name not in by_name:
        raise FileNotFoundError(f"Expected a target for {path}, but {targets} holds no {name} with a suffix")
    return by_name[name]
