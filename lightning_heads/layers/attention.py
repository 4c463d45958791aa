"""Self-attention over the positions of a feature map."""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class SelfAttention(nn.Module):
    """Self-attention over all positions of `(b, c, h, w)`, added to the input with a learned scale that starts at zero.

    Source: fastai's `SelfAttention`; Zhang 2018, Self-Attention Generative Adversarial Networks. Memory grows with the
    square of `h * w`.

    >>> x = torch.rand(2, 16, 5, 7)
    >>> bool((SelfAttention(16)(x) == x).all())
    True
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 8, 1)
        self.query, self.key, self.value = (
            spectral_norm(nn.Conv1d(channels, width, 1, bias=False)) for width in (inner, inner, channels)
        )
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        query, key, value = self.query(flat), self.key(flat), self.value(flat)
        weights = torch.bmm(query.transpose(1, 2), key).softmax(dim=1)
        out: Tensor = (self.gamma * torch.bmm(value, weights) + flat).view_as(x)
        return out
