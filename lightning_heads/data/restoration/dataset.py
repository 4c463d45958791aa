"""A data set of images whose targets are images."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision import tv_tensors

from ...utils.arguments import Unpack
from ..images.opening import ImageReadError
from ..images.reading import ReadingArgs, read_image_and_size
from ..transforms.resize import ResizeTo


class RestorationDataset(Dataset[tuple[Tensor, Tensor]]):
    """Data set that returns `(input, target)`, float in 0..1: a degraded image and the original, or two files.

    Args:
        paths: The image files.
        targets: The files of the targets, or None if each image is its own target.
        size: Resizes a uint8 image, or an image and its target.
        augment: Augments a float image in 0..1, or an image and its target alike, or None. Images are torchvision's
            `tv_tensors`.
        degradation: Computes the input from the target, or None.
        seed: Seed that makes the random numbers drawn for an image always the same; by default torch's generator is
            used as it is.
        **reading: Arguments of `read_image`.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        targets: Sequence[Path] | None,
        *,
        size: ResizeTo,
        augment: Callable[..., Any] | None = None,
        degradation: nn.Module | None = None,
        seed: int | None = None,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        self.paths, self.targets = [*paths], None if targets is None else [*targets]
        self.size, self.augment, self.reading = size, augment, reading
        self.degradation, self.seed = degradation, seed

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if self.seed is None:
            return self._pair(index)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed + index)
            return self._pair(index)

    def read(self, index: int) -> list[tv_tensors.Image]:
        """Reads an image and its target, or only the image if it is its own target, uint8 `(c, h, w)`.

        They are scaled by `size`, but not cropped.

        Raises:
            ImageReadError: If one of them cannot be read, or their sizes differ.
        """
        paths = [self.paths[index]] if self.targets is None else [self.paths[index], self.targets[index]]
        read = [read_image_and_size(path, size=self.size.scaled_size, **self.reading) for path in paths]
        (height, width), (h, w) = (read[i][1] for i in (0, -1))
        if (height, width) != (h, w):
            raise ImageReadError(paths[-1], f"it is {w}x{h} pixels, while {paths[0]} is {width}x{height}")
        return [tv_tensors.Image(image) for image, _ in read]

    def _pair(self, index: int) -> tuple[Tensor, Tensor]:
        images = _apply(self.size, self.read(index))
        images = [tv_tensors.Image(image.to(torch.float32) / 255) for image in images]
        if self.augment is not None:
            images = _apply(self.augment, images)
        image, target = (images[i].as_subclass(Tensor) for i in (0, -1))
        if self.degradation is not None:
            image = self.degradation(target)
            if image.shape[-2:] != target.shape[-2:]:
                raise ValueError(
                    "Expected `degradation` to keep an image's height and width, but it returned "
                    f"{tuple(image.shape)} for {tuple(target.shape)}"
                )
        return image, target


def _apply(transform: Callable[..., Any], images: list[tv_tensors.Image]) -> list[Any]:
    """Applies a transform to one or two images in one call, so that random parameters are shared."""
    return [*transform(*images)] if len(images) > 1 else [transform(*images)]
