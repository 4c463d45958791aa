"""Losses of pair verification."""

import torch.nn.functional as F
from torch import Tensor, nn

from .metric_learning import nt_xent, pair_masks


class PairLoss(nn.CrossEntropyLoss):
    """Cross-entropy of logits `(b, 2)` of `different` and `same`, and targets `(b,)` of 0 and 1 of any type."""

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        return super().forward(outputs, target.long())

    def all_pairs(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the loss of all pairs of a batch: NT-Xent (Chen 2020) plus binary cross-entropy.

        NT-Xent compares pairs with each other, whatever the threshold; the cross-entropy, in which pairs of one class
        have half the weight however few they are, learns the threshold.

        Args:
            logits: Logits `(b, b)` that two samples are of one class.
            labels: Class indices `(b,)`.
        """
        same, different = pair_masks(labels)
        smoothing = self.label_smoothing
        target = same.to(logits.dtype) * (1 - smoothing) + smoothing / 2
        weight = (same / same.sum().clamp(min=1) + different / different.sum().clamp(min=1)) / 2
        entropy = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum")
        return nt_xent(logits, same, different) + entropy
