"""A data set of image files with their masks."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from ...utils.arguments import Unpack
from ..images.opening import open_image, orientation
from ..images.reading import ReadingArgs, read_image_and_size
from ..transforms.resize import ResizeTo
from .codes import MaskCodes
from .reading import MaskReadError


class MaskDataset(Dataset[Any]):
    """Data set of image files and mask files: returns `(image, mask)`.

    A mask is long `(h, w)`, or for multi-label masks float `(c, h, w)` of 0 and 1. Pixels that `size` and `augment`
    fill in, and pixels of unknown class, get `ignore_index`; if it is None, filled pixels are class 0.

    Args:
        paths: The image files.
        masks: The mask file of each image, or its mask files of all classes.
        codes: Reads masks as class indices.
        ignore_index: Target of pixels that losses and metrics ignore, or None.
        size: Resizes a uint8 image and its mask.
        augment: Augments a float image in 0..1 and its mask alike, or None. Both are torchvision's `tv_tensors`; the
            mask is integer `(k + 1, h, w)`, whose last channel is 1 where the class is known; see `MaskCodes`.
        **reading: Arguments of `read_image`.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        masks: Sequence[Path | tuple[Path, ...]],
        *,
        codes: MaskCodes,
        ignore_index: int | None,
        size: ResizeTo,
        augment: Callable[..., Any] | None = None,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        if len(masks) != len(paths):
            raise ValueError(f"Expected a mask for each image, but got {len(masks)} masks for {len(paths)} images")
        self.paths, self.masks = [*paths], [*masks]
        self.codes, self.ignore_index = codes, ignore_index
        self.size, self.augment, self.reading = size, augment, reading
        # in shared memory, so that only one worker process warns
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
        """Reads an image, scaled by `size` but not cropped, and its mask `(k + 1, h, w)`, which is not scaled.

        Warns once if an image is rotated by its EXIF orientation and its mask, of the same stored size, has none, since
        the mask may then be misaligned.

        Raises:
            ImageReadError: If one of them cannot be read, or their sizes differ.
        """
        path, files = self.paths[index], files_of(self.masks[index])
        image, size = read_image_and_size(path, size=self.size.scaled_size, **self.reading)
        mask = self.codes.read(files, self.reading.get("max_pixels"))
        if size != mask.shape[-2:]:
            raise MaskReadError(files[0], _size_mismatch(path, size, mask))
        if not self._warned and (unrotated := _unrotated_mask(path, files)):
            self._warned.fill_(True)
            warnings.warn(
                f"{path} is turned upright by its EXIF orientation, but its mask {unrotated} has none: if the mask was "
                "drawn on the image as stored, remove that orientation; other images may have the same problem",
                stacklevel=2,
            )
        return tv_tensors.Image(image), tv_tensors.Mask(mask)

    def _target(self, mask: Tensor) -> Tensor:
        target = mask[:-1].to(torch.float32) if self.codes.multilabel else mask[0].to(torch.int64)
        if self.ignore_index is None:
            return target
        return target.where(mask[-1] == 1, self.ignore_index)


def _size_mismatch(path: Path, size: tuple[int, int], mask: Tensor) -> str:
    """Returns the reason of an error for a mask that differs in size from its image, of upright `size`."""
    height, width = size
    h, w = mask.shape[-2:]
    reason = f"it is {w}x{h} pixels, while {path} is {width}x{height}"
    with open_image(path) as file:
        if file.size == (w, h):
            reason += " once it is turned upright by its EXIF orientation: turn the mask too, or drop that orientation"
    return reason


def _unrotated_mask(path: Path, files: Sequence[Path]) -> Path | None:
    """Returns the first mask of the stored size of its image without an EXIF orientation, if the image has one."""
    size, orientation = _read_header(path)
    return next((file for file in files if _read_header(file) == (size, 1)), None) if orientation != 1 else None


def _read_header(path: Path) -> tuple[tuple[int, int], int]:
    """Returns the stored width and height of an image file, and its EXIF orientation, without decoding it."""
    with open_image(path) as file:
        return file.size, orientation(file) if "exif" in file.info else 1


def files_of(mask: Path | tuple[Path, ...]) -> tuple[Path, ...]:
    """Returns the files of a mask: one, or one for each class."""
    return mask if isinstance(mask, tuple) else (mask,)
