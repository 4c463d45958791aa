"""Precision of tensors."""

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Casts a tensor of lower precision to float32; returns any other unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
