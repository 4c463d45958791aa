"""Equal error rate of scored pairs."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat


class EqualErrorRate(Metric):
    """Equal error rate: the error rate at the threshold where false positive and false negative rate are equal.

    Between two thresholds it is interpolated linearly. Scores are `(b,)` of any range, higher for positives, or
    probabilities `(b, 2)` of negative and positive; targets `(b,)` are bools, or 0 and 1. Without a positive, without a
    negative, or with a score that is NaN, it is NaN.

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
        """Stores a batch."""
        self.scores.append(scores.detach()[:, 1] if scores.ndim == 2 else scores.detach())
        self.targets.append(targets.bool())

    def compute(self) -> Tensor:
        """Returns the equal error rate over all stored batches."""
        scores, order = dim_zero_cat(self.scores).sort(descending=True)
        positive = dim_zero_cat(self.targets)[order]
        last = F.pad(scores[1:] != scores[:-1], (0, 1), value=True)  # the last of each run of equal scores
        rate = equal_error_rate(_acceptance_rates(~positive, last), _acceptance_rates(positive, last))
        return rate.where(~scores.isnan().any(), torch.nan)


def equal_error_rate(false_positive_rate: Tensor, true_positive_rate: Tensor) -> Tensor:
    """Returns the rate at which both kinds of error are equally frequent, of rates that rise from 0 to 1."""
    # rises from -1, where all are rejected, to 1, where all are accepted
    difference = false_positive_rate + true_positive_rate - 1
    after = (difference >= 0).long().argmax()
    return torch.lerp(
        false_positive_rate[after - 1],
        false_positive_rate[after],
        difference[after - 1] / (difference[after - 1] - difference[after]),
    )


def _acceptance_rates(selected: Tensor, last: Tensor) -> Tensor:
    """Returns the fraction of the selected samples that is accepted at each threshold, from 0 to 1."""
    counts = selected.cumsum(dim=0)[last]
    return F.pad(counts / counts[-1], (1, 0))
