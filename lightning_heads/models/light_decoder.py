"""A U-Net decoder that costs little more than its encoder."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import (
    Activation,
    Blur,
    Norm,
    SelfAttention,
    Upsample,
    UpsampleMethod,
    conv_layer,
    from_blocks,
    icnr_,
    to_blocks,
)

LastCross = Literal["full", "half", "none"]

# Channels of a stage over its reduction: 32 at 1/2, 64 at 1/4.
_WIDTH = 16

# Channels of what is made of the image itself, without which thin structures are learnt late.
_IMAGE_WIDTH = 24


class LightDecoder(nn.Module):
    """Maps an image `(b, c, h, w)` and its encoder's maps, from fine to coarse, to `(b, num_outputs, h, w)`.

    Each stage narrows the coarser map before it enlarges it, and convolves it with the skip once. The image's own
    pixels, convolved once, join the stage at half resolution, as blocks of 2x2, and the output is put together from
    such blocks: full detail without a layer at full resolution, which costs most in other decoders.

    Args:
        channels: Channels of the maps.
        reductions: Image size over map size, 1 or 2 for the finest.
        in_channels: Channels of the image.
        num_outputs: Channels of the output.
        upsample: See `DynamicUnet`, as for all that follow.
        blur: Likewise.
        blur_final: Likewise.
        self_attention: Likewise.
        last_cross: Likewise.
        bottle: Likewise.
        act: Likewise.
        norm: Likewise.
        max_width: Likewise.
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
        last_cross: LastCross = "half",
        bottle: bool = False,
        act: Activation = "relu",
        norm: Norm = "batch",
        max_width: int | None = 256,
    ) -> None:
        super().__init__()
        *skips, width = channels
        scales = [*reductions[: len(skips)]]
        self.last_cross, self.in_blocks = last_cross, last_cross == "half" and scales[0] > 1
        if last_cross != "none":
            joined = in_channels * (4 if self.in_blocks else 1)
            self.image = conv_layer(joined, _IMAGE_WIDTH, norm="none", act=act)
            if self.in_blocks or scales[0] == 1:
                skips[0] += _IMAGE_WIDTH
            else:
                skips, scales = [_IMAGE_WIDTH, *skips], [1, *scales]
        self.stages = nn.ModuleList()
        for i, (skip, scale) in enumerate(zip(reversed(skips), reversed(scales), strict=True)):
            last = i == len(skips) - 1
            stage = _Stage(
                width,
                skip,
                min(_WIDTH * scale // (2 if bottle and last else 1), max_width or _WIDTH * scale),
                upsample,
                blur=blur and (blur_final or not last),
                attention=self_attention and i == max(len(skips) - 3, 0),
                act=act,
                norm=norm,
            )
            self.stages.append(stage)
            width = stage.width
        self.out = nn.Conv2d(width, num_outputs * (4 if self.in_blocks else 1), 3, padding=1)
        if self.in_blocks:
            icnr_(self.out.weight)
        self.blur = Blur() if self.in_blocks and blur and blur_final else nn.Identity()

    def forward(self, image: Tensor, maps: list[Tensor]) -> Tensor:
        *skips, x = maps
        size = image.shape[-2:]
        if self.last_cross != "none":
            image = self.image(to_blocks(image) if self.in_blocks else image)
            if len(skips) < len(self.stages):
                skips = [image, *skips]
            else:
                skips[0] = torch.cat([_fit(skips[0], image.shape[-2:]), image], dim=1)
        for stage, skip in zip(self.stages, reversed(skips), strict=True):
            x = stage(x, skip)
        x = self.out(x)
        return self.blur(from_blocks(x, size)) if self.in_blocks else _fit(x, size)


class _Stage(nn.Module):
    """Enlarges the coarser map, narrowed, to a skip's size and convolves both."""

    def __init__(
        self,
        ni: int,
        skip: int,
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
        self.conv = conv_layer(width + skip, width, norm=norm, act=act)
        if attention:
            self.conv.append(SelfAttention(width))

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        out: Tensor = self.conv(torch.cat([self.up(x, skip.shape[-2:]), skip], dim=1))
        return out


def _fit(x: Tensor, size: Sequence[int]) -> Tensor:
    return x if x.shape[-2:] == size else F.interpolate(x, size, mode="bilinear")
