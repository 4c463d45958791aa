"""Predicted images as picture files."""

from collections.abc import Iterable
from pathlib import Path

import lightning as L
from PIL import Image
from torch import Tensor

from .pictures import PictureWriter


class ImageWriter(PictureWriter):
    """Writes predicted images as png files of the predictions' own size, batch by batch; see `PictureWriter`.

    Images `(b, c, h, w)` in 0..1 are rounded to 8 bits: one channel is gray, three are red, green and blue, and four
    have alpha besides. Values beyond are clamped, and those that are not a number are 0.

    Args:
        folder: Where to write; by default the folder `predicted_images` in that of the trainer's logs.

    Raises:
        ValueError: If predictions are not images of 1, 3 or 4 channels, or would replace a file of the data.
    """

    name = "images"
    summary = "{} images"

    def prepare(self, trainer: L.Trainer, pl_module: L.LightningModule, predictions: Tensor) -> None:
        """Refuses images that no png file holds."""
        if predictions.shape[1] not in (1, 3, 4):
            raise ValueError(
                f"Expected predictions of 1, 3 or 4 channels to write as images, but got {predictions.shape[1]}"
            )

    def draw(self, prediction: Tensor, file: Path | None) -> Iterable[tuple[str, Image.Image]]:
        """Draws the image."""
        values = (prediction.float().nan_to_num(0).clamp(0, 1) * 255).round().byte()
        pixels = values[0] if len(values) == 1 else values.permute(1, 2, 0)
        return [(".", Image.fromarray(pixels.cpu().numpy()))]
