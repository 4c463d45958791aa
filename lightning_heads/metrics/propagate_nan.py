"""Makes a metric NaN if predictions are NaN."""

import torch
from torch import Tensor
from torchmetrics import Metric, SumMetric
from torchmetrics.wrappers.abstract import WrapperMetric


class PropagateNaN(WrapperMetric):
    """The score of a metric, or NaN if any of its predictions is NaN.

    Metrics that count predictions of each class need it: for torchmetrics, NaN is the first class, or no class.

    Args:
        metric: Metric of predictions and target.

    >>> from torchmetrics.classification import BinaryAccuracy
    >>> PropagateNaN(BinaryAccuracy())(torch.tensor([0.2, torch.nan]), torch.tensor([0, 0]))
    tensor(nan)
    """

    def __init__(self, metric: Metric) -> None:
        super().__init__()
        self.metric = metric
        self.nan = SumMetric(nan_strategy="disable")

    def update(self, predictions: Tensor, target: Tensor) -> None:
        """Updates the metric by a batch."""
        self.metric.update(predictions, target)
        self.nan.update(_nan_or_zero(predictions))

    def forward(self, predictions: Tensor, target: Tensor) -> Tensor:
        """Updates the metric by a batch, and returns the score of that batch."""
        score: Tensor = self.metric(predictions, target) + self.nan(_nan_or_zero(predictions))
        return score

    def compute(self) -> Tensor:
        """Returns the score of all batches."""
        score: Tensor = self.metric.compute() + self.nan.compute()
        return score

    def reset(self) -> None:
        """Forgets all batches."""
        self.metric.reset()
        self.nan.reset()


def _nan_or_zero(predictions: Tensor) -> Tensor:
    return predictions.new_zeros(()).where(~predictions.isnan().any(), torch.nan)
