"""A data set of image files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...utils.arguments import Unpack
from ...utils.files import file_stamps
from ..transforms.resize import ResizeTo
from .reading import ReadingArgs, read_image


class ImageDataset(Dataset[Any]):
    """Data set of image files: returns `(image, target)`, or only the image if there are no targets.

    Args:
        paths: The image files.
        targets: One target per file, `(n,)` or `(n, k)`, or None.
        size: Resizes a uint8 image.
        augment: Transforms a float image in 0..1, or None.
        **reading: Arguments of `read_image`.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        targets: Tensor | None,
        *,
        size: ResizeTo,
        augment: Callable[[Tensor], Tensor] | None = None,
        **reading: Unpack[ReadingArgs],
    ) -> None:
        if targets is not None and len(targets) != len(paths):
            raise ValueError(f"Expected one target a file, but got {len(targets)} targets for {len(paths)} files")
        self.paths, self.targets = [*paths], targets
        self.size, self.augment, self.reading = size, augment, reading
        self._last: tuple[object, Tensor] = None, torch.empty(0)  # stamps and image of the file that was read last

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor | tuple[Tensor, Tensor]:
        # several views of an image are requested one after another: its file is read once, unless it changes
        stamps = file_stamps([self.paths[index]])
        last, image = self._last
        if stamps != last:
            image = read_image(self.paths[index], size=self.size.scaled_size, **self.reading)
            self._last = stamps, image
        image = self.size(image).to(torch.float32) / 255
        if self.augment is not None:
            image = self.augment(image)
        return image if self.targets is None else (image, self.targets[index])

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state without the last image, so that it is not sent to worker processes."""
        return {**vars(self), "_last": (None, torch.empty(0))}

    def image_key(self) -> object:
        """Returns all that the images depend on: files, how they are read, resizing and augmentation."""
        return file_stamps(self.paths), self.reading, self.size, self.augment

    def extras(self, index: int) -> tuple[Tensor, ...]:
        """Returns the target, if there is one."""
        return () if self.targets is None else (self.targets[index],)
