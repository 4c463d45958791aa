"""Base class of data modules of images and segmentation masks."""

import inspect
import warnings
from pathlib import Path
from typing import Any, Literal

from torch import nn
from torch.utils.data import DataLoader

from ...utils.arguments import Unpack, forwards
from ..images.datamodule import ImageData, LoadingArgs
from ..images.dataset import ImageDataset
from ..images.opening import ImageReadError
from ..images.reading import verify
from ..samples.samples import Samples
from ..samples.split_folders import Split
from ..transforms.resize import ResizeTo
from .codes import MaskCodes
from .dataset import MaskDataset, files_of


class MaskLoadingArgs(LoadingArgs, total=False):
    """Arguments of `ImageData` that `MaskData` passes on to it."""

    predict_root: str | Path | None


class MaskDataArgs(MaskLoadingArgs, total=False):
    """Arguments of `MaskData` that its subclasses pass on to it."""

    ignore_index: int | None
    batch_size: int


@forwards(MaskLoadingArgs, to=ImageData)
class MaskData(ImageData):
    """Base class of the data modules of segmentation: builds the data loaders from images and their masks.

    A subclass finds the files and passes them to the constructor. A batch consists of the images, float `(b, c, h, w)`
    in 0..1, and their masks: class indices, long `(b, h, w)`, or for multi-label masks float `(b, num_classes, h, w)`
    of 0 and 1. Pixels of padding and of unknown class have the value `ignore_index`. Images to predict are loaded one
    per batch: scaled as in training, but neither cropped nor padded, so that a prediction can be resized to the size of
    its file.

    `augmentation` is called with a training image and its mask and transforms both alike: a transform of torchvision's
    `v2`, or a module that takes `tv_tensors`; see `MaskDataset`.

    Args:
        samples: Images of each split, with the mask of each image, or its masks of all classes.
        codes: Reads masks as class indices.
        ignore_index: Target of pixels that the loss and metrics ignore: padding, and pixels of unknown class. With None
            padding is class 0, and no values of masks can be ignored.
        batch_size: Images in a batch.

    Raises:
        FileNotFoundError: If masks are missing.
        TypeError: If `augmentation` does not take an image and a mask.
        ValueError: If `ignore_index` is a class index, or None although values of masks are ignored.
    """

    def __init__(
        self,
        samples: dict[Split, Samples],
        codes: MaskCodes,
        *,
        ignore_index: int | None = 255,
        batch_size: int = 16,
        **loading: Unpack[MaskLoadingArgs],
    ) -> None:
        classes = 2 if codes.multilabel else len(codes.class_names)
        if ignore_index is None and codes.ignore:
            raise ValueError("Expected `ignore_index` to be a number, as `ignore` lists codes, but got None")
        if ignore_index is not None and 0 <= ignore_index < classes:
            raise ValueError(
                f"Expected `ignore_index` to be no class index (0 to {classes - 1}), but got {ignore_index}"
            )
        if (augmentation := loading.get("augmentation")) is not None:
            _check_takes_mask(augmentation)
        super().__init__(
            {split: _with_masks(part, split, loading.get("on_error", "raise")) for split, part in samples.items()},
            codes.class_names,
            batch_size=batch_size,
            images_per_class=None,
            **loading,
        )
        self.codes, self.ignore_index = codes, ignore_index

    @property
    def multilabel(self) -> bool:
        """Whether a pixel may have any number of classes."""
        return self.codes.multilabel

    def predict_dataloader(self) -> DataLoader[Any]:
        size = ResizeTo(self.image_size, self.resize, whole=True)
        dataset = ImageDataset(self._predict_paths(), None, size=size, **self.reading)
        return DataLoader(dataset, batch_size=1, **self._workers())

    def _dataset(self, split: Split, random: bool = False) -> MaskDataset:
        samples = self._split(split)
        return MaskDataset(
            samples.paths,
            samples.tolist(),
            codes=self.codes,
            ignore_index=self.ignore_index,
            size=ResizeTo(self.image_size, self.resize, random=random),
            augment=self.augmentation if random else None,
            **self.reading,
        )

    def _errors(self, paths: list[Path], split: Split | Literal["predict"]) -> dict[int, ImageReadError]:
        if split == "predict":
            return super()._errors(paths, split)
        return verify(len(paths), self._dataset(split).read, self.num_workers)


def _with_masks(samples: Samples, split: Split, on_error: str) -> Samples:
    """Returns the samples if all masks exist; else raises, or with `on_error` `skip` warns and drops those without."""
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


def _check_takes_mask(augmentation: nn.Module) -> None:
    try:
        inspect.signature(augmentation.forward).bind(None, None)
    except TypeError:
        raise TypeError(
            "Expected `augmentation` to take an image and a mask, as torchvision's v2 transforms and v2.Compose do, "
            f"but {type(augmentation).__name__} does not"
        ) from None
