"""What the data modules of images and masks share."""

import inspect
import warnings
from pathlib import Path
from typing import Any, Literal

from torch import nn
from torch.utils.data import DataLoader

from ..images.datamodule import ImageData, Resize
from ..images.dataset import ImageDataset
from ..images.reading import ImageReadError, verify
from ..samples.samples import Samples
from ..samples.split_folders import Split
from ..transforms.resize import ResizeTo
from .codes import MaskCodes
from .dataset import MaskDataset, files_of


class MaskData(ImageData):
    """Loaders over images and their masks. A subclass finds the files and passes them on.

    A batch is the images, float `(b, c, h, w)` in 0..1, and their masks: class indices, long `(b, h, w)`, or with
    several labels float `(b, num_classes, h, w)` of 0 and 1. Pixels that are padded, or whose class is unknown, are
    `ignore_index`. Images to predict come whole, one a batch: at the scale of those in training, but neither cut nor
    padded, so that a prediction can be resized to the size of its file.

    Args:
        samples: Images of each split, and of each its mask, or one for each class.
        codes: Reads the masks.
        ignore_index: Target of pixels that loss and metrics leave out. With None, padding is class 0, and nothing can
            be ignored.
        predict_root: See `ImageData`.
        image_size: See `ImageData`.
        batch_size: See `ImageData`.
        num_workers: See `ImageData`.
        resize: See `ImageData`; `none` suits large photographs that are predicted at their own scale.
        augmentation: Changes a training image and its mask alike, called with both: a transform of torchvision's `v2`,
            or a module that takes `tv_tensors`; see `MaskDataset`. fastai's `AugTransforms` by default.
        augment: See `ImageData`.
        channels: See `ImageData`.
        on_error: Whether a pair with a missing or unusable file stops the run, or every pair is checked first and
            those are reported and left out.

    Raises:
        FileNotFoundError: If masks are missing.
        TypeError: If `augmentation` does not take an image and a mask.
        ValueError: If `ignore_index` is a class, or needed and None.
    """

    def __init__(
        self,
        samples: dict[Split, Samples],
        codes: MaskCodes,
        *,
        ignore_index: int | None = 255,
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
        classes = 2 if codes.multilabel else len(codes.class_names)
        if ignore_index is None and codes.ignore:
            raise ValueError("Expected `ignore_index` to be a number, as `ignore` lists codes, but got None")
        if ignore_index is not None and 0 <= ignore_index < classes:
            raise ValueError(f"Expected `ignore_index` to be no target from 0 to {classes - 1}, but got {ignore_index}")
        if augmentation is not None:
            _require_both(augmentation)
        super().__init__(
            {split: _existing(part, split, on_error) for split, part in samples.items()},
            codes.class_names,
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
        self.codes, self.ignore_index = codes, ignore_index

    @property
    def multilabel(self) -> bool:
        """Whether a pixel has any number of the classes."""
        return self.codes.multilabel

    def predict_dataloader(self) -> DataLoader[Any]:
        size = ResizeTo(self.image_size, self.resize, whole=True)
        dataset = ImageDataset(self._predict_paths(), None, channels=self.channels, size=size)
        return DataLoader(dataset, batch_size=1, **self._workers())

    def _dataset(self, split: Split, random: bool = False) -> MaskDataset:
        samples = self._split(split)
        return MaskDataset(
            samples.paths,
            samples.tolist(),
            codes=self.codes,
            ignore_index=self.ignore_index,
            channels=self.channels,
            size=ResizeTo(self.image_size, self.resize, random=random),
            augment=self.augmentation if random else None,
        )

    def _errors(self, paths: list[Path], split: Split | Literal["predict"]) -> dict[int, ImageReadError]:
        if split == "predict":
            return super()._errors(paths, split)
        return verify(len(paths), self._dataset(split).read, self.num_workers)


def _existing(samples: Samples, split: Split, on_error: str) -> Samples:
    """Returns the samples whose masks are there."""
    missing = {}
    for i, mask in enumerate(samples.targets):
        if absent := [file for file in files_of(mask) if not file.is_file()]:
            missing[i] = absent[0]
    if not missing:
        return samples
    count = f"{len(missing)} of {len(samples.paths)}"
    if on_error != "skip":
        first = min(missing)
        raise FileNotFoundError(
            f"Expected a mask for every {split} image, but {count} have none, the first {samples.paths[first]}, whose "
            f"mask would be {missing[first]}"
        )
    listed = "\n".join(f"  {samples.paths[i]}: there is no {file}" for i, file in missing.items())
    warnings.warn(f"{count} {split} images are left out, as they have no mask:\n{listed}", stacklevel=2)
    if len(missing) == len(samples.paths):
        raise ValueError(f"Expected {split} images with masks, but none of {len(samples.paths)} has one")
    return samples[[i for i in range(len(samples.paths)) if i not in missing]]


def _require_both(augmentation: nn.Module) -> None:
    try:
        inspect.signature(augmentation.forward).bind(None, None)
    except TypeError:
        raise TypeError(
            "Expected `augmentation` to take an image and a mask, as torchvision's v2 transforms and v2.Compose do, "
            f"but {type(augmentation).__name__} does not"
        ) from None
