"""Segmentation metrics by class: intersection over union, Dice and accuracy."""

from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import multiclass_stat_scores, multilabel_stat_scores


class SegmentationScore(Metric):
    """Intersection over union, Dice or accuracy over all pixels of an evaluation, of each class and of all classes.

    Intersection over union (the Jaccard index) and Dice (the F1 score) of all classes are the mean over those that
    occur in predictions or target. Accuracy is the fraction of pixels that are correct: for a class, of the pixels of
    that class, or with `multilabel`, of all pixels. If any prediction is NaN, so are all scores.

    Metrics of one `MetricCollection` that differ only in `score` share their counts.

    Args:
        score: The score that `compute` and `per_class` return.
        num_classes: Number of classes.
        multilabel: Whether predictions are a probability for each label `(b, c, h, w)` with targets of that shape, or
            probabilities of classes with targets `(b, h, w)`.
        ignore_index: Value of the target that is ignored; if it is the index of a class, that class has no score.

    >>> score = SegmentationScore("iou", num_classes=2)
    >>> score(torch.tensor([[[[0.9, 0.8, 0.3]], [[0.1, 0.2, 0.7]]]]), torch.tensor([[[0, 1, 1]]]))
    tensor(0.5000)
    >>> score.per_class()
    tensor([0.5000, 0.5000])
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    counts: Tensor
    nans: Tensor

    def __init__(
        self,
        score: Literal["iou", "dice", "accuracy"],
        num_classes: int,
        *,
        multilabel: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        self.score = score
        self.num_classes = num_classes
        self.multilabel = multilabel
        self.ignore_index = ignore_index
        # true positives, false positives, true negatives, false negatives and support, in the order of torchmetrics
        self.add_state("counts", torch.zeros(num_classes, 5, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("nans", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, target: Tensor) -> None:
        """Counts the pixels of a batch."""
        settings: dict[str, Any] = {"average": None, "ignore_index": self.ignore_index, "validate_args": False}
        if self.multilabel:
            counts = multilabel_stat_scores((predictions > 0.5).long(), target, self.num_classes, **settings)
        else:
            counts = multiclass_stat_scores(predictions, target, self.num_classes, **settings)
        self.counts = self.counts + counts.view_as(self.counts)
        self.nans = self.nans + predictions.isnan().sum()

    def compute(self) -> Tensor:
        """Returns the score of all classes."""
        numerator, denominator = self._ratio()
        scores = numerator.sum() / denominator.sum() if self.score == "accuracy" else numerator / denominator
        return scores.nanmean().where(self.nans == 0, torch.nan)

    def per_class(self) -> Tensor:
        """Returns the score of each class `(num_classes,)` over all ranks, NaN for a class that does not occur."""
        with self.sync_context():
            numerator, denominator = self._ratio()
            return (numerator / denominator).where(self.nans == 0, torch.nan)

    def _ratio(self) -> tuple[Tensor, Tensor]:
        """Returns the numerator and the denominator of the score of each class."""
        counts = self.counts
        if not self.multilabel and self.ignore_index in range(self.num_classes):
            counts = counts.index_fill(0, torch.tensor(self.ignore_index, device=counts.device), 0)
        tp, fp, tn, fn, _ = counts.unbind(dim=1)
        if self.score == "iou":
            return tp, tp + fp + fn
        if self.score == "dice":
            return 2 * tp, 2 * tp + fp + fn
        return (tp + tn, counts[:, :4].sum(dim=1)) if self.multilabel else (tp, tp + fn)
