"""Makes a metric NaN if predictions are NaN."""

import torch
from torch import Tensor
from torchmetrics import Metric
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
        self.found = _FoundNaN()

    def update(self, predictions: Tensor, target: Tensor) -> None:
        """Updates the metric by a batch."""
        self.metric.update(predictions, target)
        self.found.update(predictions)

    def forward(self, predictions: Tensor, target: Tensor) -> Tensor:
        """Updates the metric by a batch, and returns the score of that batch."""
        score: Tensor = self.metric(predictions, target)
        return score.where(~self.found(predictions), torch.nan)

    def compute(self) -> Tensor:
        """Returns the score of all batches."""
        score: Tensor = self.metric.compute()
        return score.where(~self.found.compute(), torch.nan)

    def reset(self) -> None:
        """Forgets all batches."""
        self.metric.reset()
        self.found.reset()


class _FoundNaN(Metric):
    """Whether any value of any batch is NaN."""

    full_state_update = False
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Counts a batch with a value that is NaN."""
        # not in place: the state may have been created in inference mode, by `reset`
        self.count = self.count + values.isnan().any().long()

    def compute(self) -> Tensor:
        """Returns whether there was one, as a bool tensor of no dimension."""
        return self.count > 0
