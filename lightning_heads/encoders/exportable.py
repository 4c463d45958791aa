"""Pooling and convolution layers whose output sizes `torch.export` can keep dynamic."""

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from ..utils.plain import size_pair


class CeilMaxPool2d(nn.MaxPool2d):
    """Max pooling with `ceil_mode`; in an export, pooling without it of a larger map, which has the same maxima."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            out: Tensor = super().forward(x)
            return out
        out = F.max_pool2d(_extend(x, self.stride), self.kernel_size, self.stride, self.padding)
        return out


class CeilAvgPool2d(nn.AvgPool2d):
    """Average pooling of 2x2 blocks with `ceil_mode`; in an export, that of a larger map, which has the same means."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            return super().forward(x)
        return F.avg_pool2d(_extend(x, self.stride), self.kernel_size, self.stride)


class SameConv2d(Conv2dSame):
    """TensorFlow's convolution with `same` padding, which is computed by integer arithmetic in an export."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            out: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
            return out
        padding: list[Any] = []
        for axis in (1, 0):
            side, stride = x.shape[2 + axis], self.stride[axis]
            total = (side - 1) // stride * stride + self.dilation[axis] * (self.kernel_size[axis] - 1) + 1 - side
            padding += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, padding), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def make_exportable(model: nn.Module) -> None:
    """Replaces the classes of layers in place by those above, for exports with dynamic sizes.

    Without them torch compares expressions of the image's size that it cannot prove for all values of a named size.
    Layers are left as they are where the window of a maximum could begin beyond the map, averages are not of 2x2
    blocks, or the kernel of a convolution is smaller than its stride.
    """
    for module in model.modules():
        if type(module) is nn.MaxPool2d and _begins_inside(module):
            module.__class__ = CeilMaxPool2d
        elif type(module) is nn.AvgPool2d and _has_blocks(module):
            module.__class__ = CeilAvgPool2d
        elif type(module) is Conv2dSame and _covers_all(module):
            module.__class__ = SameConv2d


def _begins_inside(pool: nn.MaxPool2d) -> bool:
    """Returns whether the last window of each row and column, although it may extend beyond the map, begins in it."""
    sizes, strides, padding = (size_pair(value) for value in (pool.kernel_size, pool.stride, pool.padding))
    plain = not pool.return_indices and size_pair(pool.dilation) == (1, 1)
    return pool.ceil_mode and plain and all(k >= s + p for k, s, p in zip(sizes, strides, padding, strict=True))


def _has_blocks(pool: nn.AvgPool2d) -> bool:
    """Returns whether the windows are blocks of 2x2 without padding."""
    blocks = size_pair(pool.kernel_size) == size_pair(pool.stride) == (2, 2) and size_pair(pool.padding) == (0, 0)
    return pool.ceil_mode and blocks and pool.divisor_override is None


def _covers_all(conv: nn.Conv2d) -> bool:
    """Returns whether no pixel lies between the windows of a convolution, so that its padding is not negative."""
    axes = zip(conv.kernel_size, conv.dilation, conv.stride, strict=True)
    return all(dilation * (size - 1) + 1 >= stride for size, dilation, stride in axes)


def _extend(x: Tensor, stride: int | tuple[int, int]) -> Tensor:
    """Repeats the last row and column as often as a window can extend beyond them."""
    rows, columns = size_pair(stride)
    return F.pad(x, (0, columns - 1, 0, rows - 1), mode="replicate")
