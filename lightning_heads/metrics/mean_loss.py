"""Mean of a loss over a data set."""

import torch
from torch import Tensor
from torchmetrics import Metric

from ..utils.tensors import at_least_float32


class MeanLoss(Metric):
    """Mean of a loss over a data set: the sum of the weighted means of its terms over all batches.

    Each batch has losses `(k,)` and weights `(k,)` of k terms, as `loss_terms` returns them. A loss whose weight is 0
    does not count, even if it is NaN. If all weights are 0, the mean is NaN.

    >>> mean = MeanLoss()
    >>> mean.update(torch.tensor([2.0]), torch.tensor([1.0]))
    >>> mean.update(torch.tensor([6.0]), torch.tensor([3.0]))
    >>> mean.compute()
    tensor(5.)
    """

    full_state_update = False
    higher_is_better = False
    is_differentiable = False
    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("weight", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, losses: Tensor, weights: Tensor) -> None:
        """Adds a batch."""
        # states that `Trainer(precision="16-true")` has converted to float16 become float32 here
        losses, weights = at_least_float32(losses), at_least_float32(weights)
        self.total = self.total + (losses * weights).where(weights > 0, 0)
        self.weight = self.weight + weights

    def compute(self) -> Tensor:
        """Returns the mean over all batches."""
        counts = self.weight > 0
        return (self.total / self.weight.where(counts, 1)).sum().where(counts.any(), torch.nan)
