"""Pictures of what a segmentation gets right and wrong."""

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

# Longer side of a picture, in pixels: small ones are enlarged by a whole number, large ones are shrunk.
_MIN_SIDE, _MAX_SIDE = 160, 512
_OPACITY = 0.55


class MaskPlot(SamplePlot):
    """Draws input, truth and predicted masks of the samples with the lowest IoU, and of fixed ones; see `SamplePlot`.

    Predictions are probabilities `(b, c, h, w)`. Targets are classes `(b, h, w)` or, of a task that is `multilabel` or
    has one channel, labels of the predictions' shape; `(b, h, w)` will do for one. The task's `class_names` are in the
    legend; pixels of its `ignore_index`, or of no class, are hatched. The IoU of a sample is the mean over the classes
    that its truth or its prediction has, without ignored pixels, and 1 where there are none.

    Args:
        folder: Where to write; by default the folder `pictures` in that of the trainer's logs.
        count: How many of the worst samples, and how many fixed ones.
        palette: Red, green and blue in 0..255 of each class; for labels a first one of none of them. By default black,
            then colors that stay apart with and without red-green blindness.

    Raises:
        ValueError: If a task has more classes than the palette has colors; the default one has 256.
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
        """Refuses a task with more classes than colors, before it is trained."""
        count = len(getattr(pl_module, "class_names", None) or ())
        class_colors(self.palette, count + has_labels(pl_module, count))

    def scores(self, pl_module: L.LightningModule, predictions: Tensor, target: Tensor) -> Tensor:
        """Returns the mean IoU of each sample `(b,)`."""
        ignore = getattr(pl_module, "ignore_index", None)
        if has_labels(pl_module, predictions.shape[1]):
            kept = _kept_labels(target, ignore)
            predicted, true = (predictions > 0.5).view_as(kept) & kept, (target > 0.5) & kept
            shape = predictions.flatten(2).shape
            both, either = (pixels.view(shape).sum(dim=2) for pixels in (predicted & true, predicted | true))
        else:
            both, either = _overlap(predictions, target, ignore)
        present = either > 0
        iou = (both / either.clamp(min=1)).sum(dim=1) / present.sum(dim=1).clamp(min=1)
        return torch.where(present.any(dim=1), iou, 1.0)

    def draw(
        self, pl_module: L.LightningModule, image: Tensor, prediction: Tensor, target: Tensor, score: float, file: str
    ) -> Row:
        """Draws input, truth and prediction."""
        count, ignore = len(prediction), getattr(pl_module, "ignore_index", None)
        names = output_names(pl_module, count, "class")
        labels = has_labels(pl_module, count)
        colors = class_colors(self.palette, count + labels)[labels:]
        if labels:
            kept = _kept_labels(target, ignore).view_as(prediction)
            true, predicted = (target.view_as(prediction) > 0.5) & kept, prediction > 0.5
            ignored = ~kept.any(dim=0)
        else:
            classes, ignored = torch.arange(count)[:, None, None], ~_kept_classes(target, count, ignore)
            true, predicted = (target == classes) & ~ignored, prediction.argmax(dim=0) == classes
        shown = [i for i in range(count) if true[i].any() or predicted[i].any()]
        size = _drawn_size(*target.shape[-2:])
        # averages where it shrinks, and repeats where it enlarges
        pixels = to_pixels(F.interpolate(image[None].float(), size, mode="area")[0])
        truth, guess = (_tinted(pixels, maps[shown], [colors[i] for i in shown], size) for maps in (true, predicted))
        legend: set[tuple[int, str, Color | None]] = {(i, names[i], colors[i]) for i in shown}
        if ignored.any():
            legend.add((count, "ignored", None))
            truth = hatch(truth, _resized(ignored[None], size)[0].numpy())
        return Row([pixels, truth, guess], [file, "", f"IoU {score:.3f}"], frozenset(legend))


def _kept_labels(target: Tensor, ignore: int | None) -> Tensor:
    return torch.ones_like(target, dtype=torch.bool) if ignore is None else target != ignore


def _kept_classes(target: Tensor, count: int, ignore: int | None) -> Tensor:
    known = (target >= 0) & (target < count)
    return known if ignore is None else known & (target != ignore)


def _overlap(predictions: Tensor, target: Tensor, ignore: int | None) -> tuple[Tensor, Tensor]:
    """Pixels `(b, c)` that have a class in truth and prediction, and in either."""
    size, count = predictions.shape[:2]
    kept = _kept_classes(target, count, ignore)
    first = torch.arange(size, device=target.device)[:, None, None] * count
    predicted, true = predictions.argmax(dim=1), target.long()
    both, a, b = (
        torch.bincount((first + classes)[where], minlength=size * count).view(size, count)
        for classes, where in ((true, kept & (predicted == true)), (true, kept), (predicted, kept))
    )
    return both, a + b - both


def _drawn_size(height: int, width: int) -> tuple[int, int]:
    side = max(height, width)
    scale = min(-(-_MIN_SIDE // side), _MAX_SIDE / side)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps[None].byte(), size, mode="nearest-exact")[0].bool()


def _tinted(pixels: Pixels, maps: Tensor, colors: Sequence[Color], size: tuple[int, int]) -> Pixels:
    """Lays the color of each map over the picture."""
    tinted = pixels.astype(np.float32)
    for where, color in zip(_resized(maps, size).numpy(), colors, strict=True):
        tinted[where] = tinted[where] * (1 - _OPACITY) + np.array(color, np.float32) * _OPACITY
    rounded: Pixels = tinted.round().astype(np.uint8)
    return rounded
