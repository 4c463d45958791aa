"""A sigmoid scaled to a range."""

import torch
from torch import Tensor, nn


class SigmoidRange(nn.Module):
    """Maps its input to the open interval `(low, high)` by a scaled sigmoid. Source: fastai's `SigmoidRange`.

    >>> SigmoidRange(0.0, 5.0)(torch.zeros(1))
    tensor([2.5000])
    """

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        if not low < high:
            raise ValueError(f"Expected `y_range` to go from low to high, but got ({low}, {high})")
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x) * (self.high - self.low) + self.low

    def extra_repr(self) -> str:
        return f"{self.low}, {self.high}"
