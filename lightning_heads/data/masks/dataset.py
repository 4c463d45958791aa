"""A data set of image files with their masks."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import ExifTags, Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from ..images.reading import read_image
from .codes import MaskCodes
from .reading import MaskReadError


class MaskDataset(Dataset[Any]):
    """Image files with their masks: gives `(image, mask)`.

    A mask is long `(h, w)`, or float `(c, h, w)` of 0 and 1 for several labels. What `size` and `augment` fill in gets
    `ignore_index`, as do pixels of unknown class; without it, what is filled in is class 0.

    Args:
        paths: The images.
        masks: A mask of each, or one for each class.
        codes: Reads the masks.
        ignore_index: Target of pixels that are left out of losses and metrics, or None.
        channels: Channels of the images to read; see `read_image`.
        size: Brings a uint8 image and its mask to their size.
        augment: Changes a float image in 0..1 and its mask alike, or None. They come as torchvision's `tv_tensors`;
            the mask is integer `(k + 1, h, w)`, whose last channel is 1 where the class is known; see `MaskCodes`.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        masks: Sequence[Path | tuple[Path, ...]],
        *,
        codes: MaskCodes,
        ignore_index: int | None,
        channels: int,
        size: Callable[..., Any],
        augment: Callable[..., Any] | None = None,
    ) -> None:
        if len(masks) != len(paths):
            raise ValueError(f"Expected a mask for each image, but got {len(masks)} masks for {len(paths)} images")
        self.paths, self.masks = [*paths], [*masks]
        self.codes, self.ignore_index = codes, ignore_index
        self.channels, self.size, self.augment = channels, size, augment
        # shared, so that one worker warns for all
        self._warned = torch.zeros((), dtype=torch.bool).share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = self.size(*self.read(index))
        image = tv_tensors.Image(image.to(torch.float32) / 255)
        if self.augment is not None:
            image, mask = self.augment(image, mask)
        return image.as_subclass(Tensor), self._target(mask.as_subclass(Tensor))

    def read(self, index: int) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        """Reads an image `(c, h, w)` and its mask `(k + 1, h, w)` as they are.

        Warns, once, of an image that is turned upright without its mask, where their sizes do not tell which is right.

        Raises:
            ImageReadError: If one of them cannot be read, or their sizes differ.
        """
        path, files = self.paths[index], files_of(self.masks[index])
        image, mask = read_image(path, self.channels), self.codes.read(files)
        if image.shape[-2:] != mask.shape[-2:]:
            raise MaskReadError(files[0], _other_size(path, image, mask))
        if not self._warned and (left := _left_as_is(path, files)):
            self._warned.fill_(True)
            warnings.warn(
                f"{path} is turned upright by its EXIF orientation, but its mask {left} has none: if the mask was "
                "drawn on the image as it is stored, drop that orientation; other images may be alike",
                stacklevel=2,
            )
        return tv_tensors.Image(image), tv_tensors.Mask(mask)

    def _target(self, mask: Tensor) -> Tensor:
        target = mask[:-1].to(torch.float32) if self.codes.multilabel else mask[0].to(torch.int64)
        if self.ignore_index is None:
            return target
        return target.where(mask[-1] == 1, self.ignore_index)


def _other_size(path: Path, image: Tensor, mask: Tensor) -> str:
    height, width = image.shape[-2:]
    h, w = mask.shape[-2:]
    reason = f"it is {w}x{h} pixels, while {path} is {width}x{height}"
    with Image.open(path) as file:
        if file.size == (w, h):
            reason += " once it is turned upright by its EXIF orientation: turn the mask too, or drop that orientation"
    return reason


def _left_as_is(path: Path, files: Sequence[Path]) -> Path | None:
    """Returns the first mask that is stored as large as its image, and not turned upright while the image is."""
    size, orientation = _header(path)
    return next((file for file in files if _header(file) == (size, 1)), None) if orientation != 1 else None


def _header(path: Path) -> tuple[tuple[int, int], int]:
    """Returns the width and height that a file stores, and its EXIF orientation, without decoding it."""
    with Image.open(path) as file:
        exif = file.getexif() if "exif" in file.info else {}
        return file.size, exif.get(ExifTags.Base.Orientation, 1)


def files_of(mask: Path | tuple[Path, ...]) -> tuple[Path, ...]:
    """Returns the files of a mask: one, or one for each class."""
    return mask if isinstance(mask, tuple) else (mask,)
