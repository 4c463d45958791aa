"""A U-Net decoder that costs little more than its encoder."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers import (
    Activation,
    Blur,
    Norm,
    SelfAttention,
    Upsample,
    UpsampleMethod,
    activation,
    conv_layer,
    convolve_joined,
    from_blocks,
    icnr_,
    to_blocks,
)

LastCross = Literal["full", "half", "none"]

# Channels of a stage divided by its reduction: 32 at 1/2 of the image size, 64 at 1/4.
_WIDTH = 16

# Channels computed from the image itself, without which thin structures are learned late: at full resolution, and at
# half resolution, where they are cheaper. The last is the number of channels that they are added to at full resolution.
_FULL_WIDTH, _HALF_WIDTH, _CONTEXT_WIDTH = 16, 24, 8


class LightDecoder(nn.Module):
    """Maps an image `(b, c, h, w)` and its feature maps, from fine to coarse, to `(b, num_outputs, h, w)`.

    Each stage reduces the channels of the coarser map before it upsamples it, and has one convolution of it and the
    skip connection. The stages end at half resolution, where the output is computed as 2x2 blocks of pixels. At full
    resolution the image itself is used only to correct that output, by convolutions of few channels, since wide ones
    there are most of the cost of other decoders.

    The other arguments are those of `DynamicUnet`.

    Args:
        channels: Channels of each map.
        reductions: Image size divided by map size, of each map; 1 or 2 for the finest.
        in_channels: Channels of the image.
        num_outputs: Channels of the output.
    """

    def __init__(
        self,
        channels: Sequence[int],
        reductions: Sequence[int],
        in_channels: int,
        num_outputs: int,
        *,
        upsample: UpsampleMethod = "bilinear",
        blur: bool = False,
        blur_final: bool = True,
        self_attention: bool = False,
        last_cross: LastCross = "full",
        bottle: bool = False,
        act: Activation = "relu",
        norm: Norm = "batch",
        max_width: int | None = 256,
    ) -> None:
        super().__init__()
        *skips, width = channels
        joined = [[skip] for skip in skips]
        self.in_blocks = reductions[0] > 1
        self.image: nn.Module | None = None
        self.correction: _Correction | None = None
        if last_cross == "full" and self.in_blocks:
            self.correction = _Correction(in_channels, num_outputs, act)
        elif last_cross != "none":
            self.image = conv_layer(in_channels * (4 if self.in_blocks else 1), _HALF_WIDTH, norm="none", act=act)
            joined[0].append(_HALF_WIDTH)
        self.stages = nn.ModuleList()
        for i, (skip_channels, scale) in enumerate(
            zip(reversed(joined), reversed(reductions[: len(skips)]), strict=True)
        ):
            last = i == len(skips) - 1
            stage = _Stage(
                width,
                sum(skip_channels),
                min(_WIDTH * scale // (2 if bottle and last else 1), max_width or _WIDTH * scale),
                upsample,
                blur=blur and (blur_final or not last),
                attention=self_attention and i == max(len(skips) - 3, 0),
                act=act,
                norm=norm,
            )
            self.stages.append(stage)
            width = stage.width
        outputs = num_outputs + (_CONTEXT_WIDTH if self.correction else 0)
        self.out = nn.Conv2d(width, outputs * (4 if self.in_blocks else 1), 3, padding=1)
        if self.in_blocks:
            icnr_(self.out.weight)
        self.blur = Blur() if self.in_blocks and blur and blur_final else nn.Identity()

    def forward(self, image: Tensor, maps: list[Tensor]) -> Tensor:
        *skips, x = maps
        pixels = to_blocks(image) if self.in_blocks else image
        joined = [[skip] for skip in skips]
        joined[0] = [_resize_to(skips[0], pixels.shape[-2:])]
        if self.image is not None:
            joined[0].append(self.image(pixels))
        for stage, stage_skips in zip(self.stages, reversed(joined), strict=True):
            x = stage(x, stage_skips)
        out: Tensor = self.out(x)
        if self.in_blocks:
            out = self.blur(from_blocks(out, image.shape[-2:]))
        return out if self.correction is None else self.correction(out, image)


class _Stage(nn.Module):
    """Upsamples the coarser map, with fewer channels, to the size of the skip maps, and convolves all of them."""

    def __init__(
        self,
        ni: int,
        skip_channels: int,
        width: int,
        upsample: UpsampleMethod,
        *,
        blur: bool,
        attention: bool,
        act: Activation,
        norm: Norm,
    ) -> None:
        super().__init__()
        self.width = width
        self.up = Upsample(ni, width, upsample, blur=blur, norm=norm, act=act)
        self.conv = conv_layer(width + skip_channels, width, norm=norm, act=act)
        if attention:
            self.conv.append(SelfAttention(width))

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        out: Tensor = convolve_joined(self.conv, [self.up(x, skips[0].shape[-2:]), *skips])
        return out


class _Correction(nn.Module):
    """Corrects an output, the first channels of `(b, n, h, w)`, by the other channels and the image `(b, c, h, w)`."""

    def __init__(self, in_channels: int, num_outputs: int, act: Activation) -> None:
        super().__init__()
        self.num_outputs = num_outputs
        self.image = conv_layer(in_channels, _FULL_WIDTH, norm="none", act=act)
        self.join = nn.Conv2d(_FULL_WIDTH, _CONTEXT_WIDTH, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.join.weight)
        self.act = activation(act)
        self.out = nn.Conv2d(_CONTEXT_WIDTH, num_outputs, 3, padding=1)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        first, context = torch.split(x, [self.num_outputs, _CONTEXT_WIDTH], dim=1)
        out: Tensor = first + self.out(self.act(self.join(self.image(image)) + context))
        return out


def _resize_to(x: Tensor, size: Sequence[int]) -> Tensor:
    return x if x.shape[-2:] == size else F.interpolate(x, size, mode="bilinear")
