"""Metrics of pair verification."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat


class EqualErrorRate(Metric):
    """The share of errors at the threshold where as large a share of the yes is missed as of the no let through.

    Between two thresholds it is interpolated. Scores are `(b,)` of any range, the higher the more a yes, or
    probabilities `(b, 2)` of no and yes; targets `(b,)` are bools, or 0 and 1. Without a yes or without a no it is NaN.

    >>> EqualErrorRate()(torch.tensor([0.9, 0.8, 0.3, -0.2]), torch.tensor([True, False, True, False]))
    tensor(0.5000)
    """

    full_state_update = False
    higher_is_better = False
    is_differentiable = False
    scores: list[Tensor]
    targets: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("scores", [], dist_reduce_fx="cat")
        self.add_state("targets", [], dist_reduce_fx="cat")

    def update(self, scores: Tensor, targets: Tensor) -> None:
        """Keeps a batch."""
        self.scores.append(scores.detach()[:, 1] if scores.ndim == 2 else scores.detach())
        self.targets.append(targets.bool())

    def compute(self) -> Tensor:
        """Returns the rate at which both errors are equal."""
        scores, order = dim_zero_cat(self.scores).sort(descending=True)
        yes = dim_zero_cat(self.targets)[order]
        last = torch.cat([scores.diff() != 0, yes.new_ones(1)])  # of those with one score
        let_through = _rates(~yes, last)
        missed = 1 - _rates(yes, last)
        excess = let_through - missed
        # from -1, where all are rejected, to 1, where none is
        after = (excess >= 0).long().argmax()
        return torch.lerp(
            let_through[after - 1], let_through[after], excess[after - 1] / (excess[after - 1] - excess[after])
        )


def _rates(accepted: Tensor, last: Tensor) -> Tensor:
    """Returns which share is accepted at each threshold, from none to all."""
    counts = accepted.cumsum(dim=0)[last]
    return F.pad(counts / counts[-1], (1, 0))
