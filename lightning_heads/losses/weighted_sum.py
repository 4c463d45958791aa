"""Weighted sum of losses."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class WeightedSum(nn.Module):
    """Weighted sum of losses of the same outputs and target.

    Args:
        losses: The losses.
        weights: Weight of each.
    """

    def __init__(self, losses: Sequence[nn.Module], weights: Sequence[float]) -> None:
        super().__init__()
        if len(losses) != len(weights):
            raise ValueError(f"Expected `weights` to have {len(losses)} entries, one a loss, but got {len(weights)}")
        self.losses = nn.ModuleList(losses)
        self.weights = [float(weight) for weight in weights]

    def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
        terms = [w * loss(outputs, target) for w, loss in zip(self.weights, self.losses, strict=True)]
        return torch.stack(terms).sum()
