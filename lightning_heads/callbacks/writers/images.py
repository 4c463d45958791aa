"""Writes predicted images to png files."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning as L
from PIL import Image
from torch import Tensor

from .pictures import PictureWriter


class ImageWriter(PictureWriter):
    """Writes predicted images as png files of the predictions' own size, batch by batch; see `PictureWriter`.

    Images `(b, c, h, w)` in 0..1 are rounded to 8 bits: one channel is grayscale, three are RGB, four are RGBA. Values
    outside 0..1 are clamped, and NaN becomes 0.

    Args:
        folder: Output folder; by default `predicted_images` in the folder of the trainer's logs.

    Raises:
        ValueError: If predictions are not images of 1, 3 or 4 channels, or would overwrite a file of the data.
    """

    name = "images"
    summary = "{} images"

    def prepare(self, trainer: L.Trainer, pl_module: L.LightningModule, predictions: Tensor) -> None:
        """Checks that the images have a number of channels that png files support."""
        if predictions.shape[1] not in (1, 3, 4):
            raise ValueError(
                f"Expected predictions of 1, 3 or 4 channels to write as images, but got {predictions.shape[1]}"
            )

    def draw(self, prediction: Tensor, file: Path | None, dataset: Any) -> Iterable[tuple[str, Image.Image]]:
        """Converts the image to 8 bits."""
        values = (prediction.float().nan_to_num(0).clamp(0, 1) * 255).round().byte()
        pixels = values[0] if len(values) == 1 else values.permute(1, 2, 0)
        return [(".", Image.fromarray(pixels.cpu().numpy()))]
