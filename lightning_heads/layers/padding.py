"""Padding to a multiple of a size, and its inverse, written so that `torch.export` keeps sizes dynamic."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(x: Tensor, multiple: int, mode: Literal["constant", "replicate"] = "replicate") -> Tensor:
    """Pads `(b, c, h, w)` below and to the right until height and width are multiples of a number.

    >>> pad_to_multiple(torch.rand(1, 3, 33, 64), 32).shape
    torch.Size([1, 3, 64, 64])
    """
    height, width = x.shape[-2:]
    # written as a sum, of which an export can prove that it is not zero
    rows, columns = (((side - 1) // multiple + 1) * multiple for side in (height, width))
    padding: list[Any] = [0, columns - width, 0, rows - height]
    return F.pad(x, padding, mode=mode)


def crop(x: Tensor, size: Sequence[int]) -> Tensor:
    """Crops `(b, c, h, w)` below and to the right to a size that is not larger.

    >>> crop(torch.rand(1, 3, 64, 64), (33, 64)).shape
    torch.Size([1, 3, 33, 64])
    """
    height, width = size
    if torch.compiler.is_exporting():
        # a slice would compare both sizes, and with it fix the remainder of the size by the padding's multiple
        rows, columns = (torch.arange(side, device=x.device) for side in (height, width))
        return x.index_select(-2, rows).index_select(-1, columns)
    return x[..., :height, :width]
