"""Upsampling of feature maps."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .convolution import Activation, Norm, conv_layer

UpsampleMethod = Literal["bilinear", "pixel_shuffle"]


class PixelShuffleICNR(nn.Sequential):
    """Doubles the size of a feature map by a 1x1 convolution to four times the channels and a pixel shuffle.

    Maps `(b, ni, h, w)` to `(b, nf, 2h, 2w)`. ICNR initialization makes it nearest-neighbor upsampling at first, which
    avoids checkerboard artifacts (Aitken 2017). Source: fastai's `PixelShuffle_ICNR`.

    Args:
        ni: Channels in.
        nf: Channels out.
        blur: Whether to average each pixel with its neighbors above and to the left (Sugawara 2018).
        norm: Normalization of the convolution.
        act: Activation of the convolution.

    >>> PixelShuffleICNR(8, 4)(torch.rand(1, 8, 5, 7)).shape
    torch.Size([1, 4, 10, 14])
    """

    def __init__(
        self, ni: int, nf: int, *, blur: bool = False, norm: Norm = "none", act: Activation | None = "relu"
    ) -> None:
        conv = conv_layer(ni, nf * 4, 1, norm=norm, act=act, init=icnr_)
        super().__init__(conv, nn.PixelShuffle(2), *([Blur()] if blur else []))


class Blur(nn.Sequential):
    """Averages each pixel of `(b, c, h, w)` with its neighbors above and to the left. Source: fastai's `blur`."""

    def __init__(self) -> None:
        super().__init__(nn.ReplicationPad2d((1, 0, 1, 0)), nn.AvgPool2d(2, stride=1))


class Upsample(nn.Module):
    """Upsamples a feature map to a given size and changes its channels: `(b, ni, h, w)` to `(b, nf, *size)`.

    Args:
        ni: Channels in.
        nf: Channels out.
        method: `bilinear`, after a 1x1 convolution, or `pixel_shuffle`.
        blur: See `PixelShuffleICNR`.
        norm: Normalization of the pixel shuffle.
        act: Activation of the pixel shuffle.
    """

    def __init__(
        self,
        ni: int,
        nf: int,
        method: UpsampleMethod,
        *,
        blur: bool = False,
        norm: Norm = "none",
        act: Activation = "relu",
    ) -> None:
        super().__init__()
        if method not in ("bilinear", "pixel_shuffle"):
            raise ValueError(f"Expected `upsample` to be bilinear or pixel_shuffle, but got {method!r}")
        if blur and method == "bilinear":
            raise ValueError("Expected `blur` with `upsample='pixel_shuffle'`, but got bilinear")
        self.conv: nn.Module
        if method == "pixel_shuffle":
            self.conv, self.mode = PixelShuffleICNR(ni, nf, blur=blur, norm=norm, act=act), "nearest"
        else:
            self.conv, self.mode = nn.Conv2d(ni, nf, 1), "bilinear"

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        return F.interpolate(self.conv(x), size, mode=self.mode)


@torch.no_grad()
def icnr_(weight: Tensor) -> Tensor:
    """Initializes the weights before a pixel shuffle by two in place, equal for the four pixels of a block (ICNR).

    Each block's weights are drawn by `kaiming_normal_` (He 2015).

    >>> weight = icnr_(torch.empty(8, 3, 1, 1))
    >>> bool((weight[0] == weight[3]).all())
    True
    """
    block = nn.init.kaiming_normal_(weight.new_empty(weight.shape[0] // 4, *weight.shape[1:]))
    return weight.copy_(block.repeat_interleave(4, dim=0))
