"""Plots of predicted and true segmentation masks."""

from collections.abc import Sequence
from pathlib import Path

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...drawing.palette import Color, class_colors
from ...drawing.sheet import Pixels, Row, hatch, to_pixels
from ..outputs import has_labels, output_names
from .samples import SamplePlot

# Longer side of a picture, in pixels: smaller images are enlarged by an integer factor, larger ones are shrunk.
_MIN_SIDE, _MAX_SIDE = 160, 512
_OPACITY = 0.55


class MaskPlot(SamplePlot):
    """Draws input, true and predicted masks of the samples with the lowest IoU, and of fixed ones; see `SamplePlot`.

    Predictions are probabilities `(b, c, h, w)`. Targets are class indices `(b, h, w)` or, if the task is `multilabel`
    or has one channel, labels of the predictions' shape; for one channel also `(b, h, w)`. The legend has the task's
    `class_names`; pixels of its `ignore_index`, or of no known class, are hatched. The IoU of a sample is the mean over
    the classes in its true or predicted mask, without ignored pixels, and 1 if there are none.

    Args:
        folder: Output folder; by default `pictures` in the folder of the trainer's logs.
        count: Number of worst samples, and of fixed samples.
        palette: Red, green and blue in 0..255 of each class; for labels, one for the background comes first. By default
            black, then colors that are distinguishable with and without red-green color blindness.

    Raises:
        ValueError: If a task has more classes than the palette has colors; the default palette has 256.
    """

    name = "masks"
    columns = ("input", "truth", "prediction")

    def __init__(
        self, folder: str | Path | None = None, count: int = 4, palette: Sequence[Sequence[int]] | None = None
    ) -> None:
        super().__init__(folder, count)
        class_colors(palette, 0)
        self.palette = palette

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Checks before training that the palette has a color for each of the task's classes."""
        count = len(getattr(pl_module, "class_names", None) or ())
        class_colors(self.palette, count + has_labels(pl_module, count))

    def scores(self, pl_module: L.LightningModule, predictions: Tensor, target: Tensor) -> Tensor:
        """Returns the mean IoU of each sample `(b,)`."""
        ignore = getattr(pl_module, "ignore_index", None)
        if has_labels(pl_module, predictions.shape[1]):
            valid = _valid_labels(target, ignore)
            predicted, true = (predictions > 0.5).view_as(valid) & valid, (target > 0.5) & valid
            shape = predictions.flatten(2).shape
            intersection, union = (pixels.view(shape).sum(dim=2) for pixels in (predicted & true, predicted | true))
        else:
            intersection, union = _intersection_and_union(predictions, target, ignore)
        present = union > 0
        iou = (intersection / union.clamp(min=1)).sum(dim=1) / present.sum(dim=1).clamp(min=1)
        return torch.where(present.any(dim=1), iou, 1.0)

    def draw(
        self, pl_module: L.LightningModule, image: Tensor, prediction: Tensor, target: Tensor, score: float, file: str
    ) -> Row:
        """Draws the input, and the true and the predicted mask over it."""
        count, ignore = len(prediction), getattr(pl_module, "ignore_index", None)
        names = output_names(pl_module, count, "class")
        labels = has_labels(pl_module, count)
        colors = class_colors(self.palette, count + labels)[labels:]
        if labels:
            valid = _valid_labels(target, ignore).view_as(prediction)
            true, predicted = (target.view_as(prediction) > 0.5) & valid, prediction > 0.5
            ignored = ~valid.any(dim=0)
        else:
            classes, ignored = torch.arange(count)[:, None, None], ~_valid_classes(target, count, ignore)
            true, predicted = (target == classes) & ~ignored, prediction.argmax(dim=0) == classes
        shown = [i for i in range(count) if true[i].any() or predicted[i].any()]
        size = _display_size(*target.shape[-2:])
        # mode "area" averages pixels when shrinking and repeats them when enlarging
        pixels = to_pixels(F.interpolate(image[None].float(), size, mode="area")[0])
        truth, guess = (_overlay(pixels, maps[shown], [colors[i] for i in shown], size) for maps in (true, predicted))
        legend: set[tuple[int, str, Color | None]] = {(i, names[i], colors[i]) for i in shown}
        if ignored.any():
            legend.add((count, "ignored", None))
            truth = hatch(truth, _resized(ignored[None], size)[0].numpy())
        return Row([pixels, truth, guess], [file, "", f"IoU {score:.3f}"], frozenset(legend))


def _valid_labels(target: Tensor, ignore: int | None) -> Tensor:
    return torch.ones_like(target, dtype=torch.bool) if ignore is None else target != ignore


def _valid_classes(target: Tensor, count: int, ignore: int | None) -> Tensor:
    known = (target >= 0) & (target < count)
    return known if ignore is None else known & (target != ignore)


def _intersection_and_union(predictions: Tensor, target: Tensor, ignore: int | None) -> tuple[Tensor, Tensor]:
    """Returns the pixel counts of intersection and union of each class's true and predicted mask, both `(b, c)`."""
    size, count = predictions.shape[:2]
    valid = _valid_classes(target, count, ignore)
    offset = torch.arange(size, device=target.device)[:, None, None] * count
    predicted, true = predictions.argmax(dim=1), target.long()
    intersection, in_target, in_prediction = (
        torch.bincount((offset + classes)[where], minlength=size * count).view(size, count)
        for classes, where in ((true, valid & (predicted == true)), (true, valid), (predicted, valid))
    )
    return intersection, in_target + in_prediction - intersection


def _display_size(height: int, width: int) -> tuple[int, int]:
    side = max(height, width)
    scale = min(-(-_MIN_SIDE // side), _MAX_SIDE / side)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps[None].byte(), size, mode="nearest-exact")[0].bool()


def _overlay(pixels: Pixels, maps: Tensor, colors: Sequence[Color], size: tuple[int, int]) -> Pixels:
    """Blends the color of each mask into the picture."""
    tinted = pixels.astype(np.float32)
    for where, color in zip(_resized(maps, size).numpy(), colors, strict=True):
        tinted[where] = tinted[where] * (1 - _OPACITY) + np.array(color, np.float32) * _OPACITY
    rounded: Pixels = tinted.round().astype(np.uint8)
    return rounded
