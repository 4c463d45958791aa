"""Precision of tensors."""

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Returns a tensor of less than float32 precision as float32, and any other as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
