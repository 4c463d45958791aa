"""Pooling over the positions of a feature map."""

import torch
from torch import Tensor, nn


class AdaptiveConcatPool2d(nn.Module):
    """Concatenates adaptive max pooling and adaptive average pooling, the maximum first.

    Maps `(b, c, h, w)` to `(b, 2c, size, size)`. Source: fastai's `AdaptiveConcatPool2d`.

    >>> AdaptiveConcatPool2d()(torch.rand(2, 8, 7, 5)).shape
    torch.Size([2, 16, 1, 1])
    """

    def __init__(self, size: int | tuple[int, int] = 1) -> None:
        super().__init__()
        self.max_pool = nn.AdaptiveMaxPool2d(size)
        self.avg_pool = nn.AdaptiveAvgPool2d(size)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.max_pool(x), self.avg_pool(x)], dim=1)
