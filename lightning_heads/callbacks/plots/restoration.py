"""Plots of input, predicted and target images of a restoration."""

import lightning as L
from torch import Tensor

from ...drawing.sheet import Pixels, Row, to_pixels
from .samples import SamplePlot

# Sides of a picture, in pixels: smaller images are enlarged by an integer factor, larger ones are center-cropped.
_MIN_SIDE, _MAX_SIDE = 160, 512


class RestorationPlot(SamplePlot):
    """Draws input, prediction and target of the samples with the lowest PSNR, and of fixed ones; see `SamplePlot`.

    Images are in 0..1, gray or in color, and an input may be smaller than its target. Pixels are never interpolated:
    small images are enlarged by an integer factor, and images larger than 512 pixels are center-cropped.

    Args:
        folder: Output folder; by default `pictures` in the folder of the trainer's logs.
        count: Number of worst samples, and of fixed samples.
    """

    name = "images"
    columns = ("input", "prediction", "target")

    def scores(self, pl_module: L.LightningModule, predictions: Tensor, target: Tensor) -> Tensor:
        """Returns the peak signal-to-noise ratio of each sample in dB, `(b,)`, for a peak of 1."""
        return -10 * (predictions - target).square().flatten(1).mean(dim=1).log10()

    def draw(
        self, pl_module: L.LightningModule, image: Tensor, prediction: Tensor, target: Tensor, score: float, file: str
    ) -> Row:
        """Draws input, prediction and target."""
        height, width = target.shape[-2:]
        scale = max(1, -(-_MIN_SIDE // max(height, width)))
        pictures = [_fit(to_pixels(each), height * scale, width * scale) for each in (image, prediction, target)]
        return Row(pictures, [file, f"PSNR {score:.2f} dB", ""])


def _fit(pixels: Pixels, height: int, width: int) -> Pixels:
    """Repeats pixels by the largest integer factor that fits, then crops the center."""
    times = max(1, min(height // pixels.shape[0], width // pixels.shape[1]))
    large = pixels.repeat(times, axis=0).repeat(times, axis=1)
    top, left = (max(0, side - _MAX_SIDE) // 2 for side in large.shape[:2])
    return large[top : top + _MAX_SIDE, left : left + _MAX_SIDE]
