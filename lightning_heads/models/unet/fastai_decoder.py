"""fastai's U-Net decoder, layer for layer."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...layers import (
    Activation,
    Norm,
    PixelShuffleICNR,
    SelfAttention,
    Upsample,
    UpsampleMethod,
    activation,
    conv_layer,
    from_blocks,
    to_blocks,
)
from .light_decoder import LastCross


class FastaiDecoder(nn.Module):
    """Maps an image `(b, c, h, w)` and its feature maps, from fine to coarse, to `(b, num_outputs, h, w)`.

    Source: fastai's `DynamicUnet`. `bottle=True` crashes there; here it halves the inner channels of the last block.

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
        upsample: UpsampleMethod = "pixel_shuffle",
        blur: bool = False,
        blur_final: bool = True,
        self_attention: bool = False,
        last_cross: LastCross = "full",
        bottle: bool = False,
        act: Activation = "relu",
        norm: Norm = "none",
        max_width: int | None = None,
    ) -> None:
        super().__init__()
        *skips, width = channels
        inner = width * 2 if max_width is None else min(width * 2, max(max_width, width))
        self.bridge = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.ReLU(),
            conv_layer(width, inner, norm=norm, act=act),
            conv_layer(inner, width, norm=norm, act=act),
        )
        self.stages = nn.ModuleList()
        for i, skip in enumerate(reversed(skips)):
            last = i == len(skips) - 1
            stage = _Stage(
                width,
                skip,
                upsample,
                halved=last,
                blur=blur and (blur_final or not last),
                attention=self_attention and i == max(len(skips) - 3, 0),
                act=act,
                norm=norm,
                max_width=max_width,
            )
            self.stages.append(stage)
            width = stage.width
        self.in_blocks = last_cross == "half" and reductions[0] > 1
        self.cross = last_cross != "none"
        self.shuffle = (
            None if self.in_blocks or reductions[0] == 1 else PixelShuffleICNR(width, width, norm=norm, act=act)
        )
        if self.cross:
            width += in_channels * (4 if self.in_blocks else 1)
            self.block = _ResBlock(width, width // 2 if bottle else width, act=act, norm=norm)
        self.out = conv_layer(width, num_outputs * (4 if self.in_blocks else 1), 1, norm=norm, act=None)

    def forward(self, image: Tensor, maps: list[Tensor]) -> Tensor:
        x = self.bridge(maps[-1])
        for stage, skip in zip(self.stages, maps[-2::-1], strict=True):
            x = stage(x, skip)
        size = image.shape[-2:]
        if self.in_blocks:
            image = to_blocks(image)
        if self.shuffle is not None:
            x = self.shuffle(x)
        x = F.interpolate(x, image.shape[-2:])
        if self.cross:
            x = self.block(torch.cat([x, image], dim=1))
        x = self.out(x)
        return from_blocks(x, size) if self.in_blocks else x


class _Stage(nn.Module):
    """Upsamples the coarser map and concatenates it with a skip connection: fastai's `UnetBlock`."""

    def __init__(
        self,
        up: int,
        skip: int,
        upsample: UpsampleMethod,
        *,
        halved: bool,
        blur: bool,
        attention: bool,
        act: Activation,
        norm: Norm,
        max_width: int | None,
    ) -> None:
        super().__init__()
        ni = up // 2 + skip
        self.width = min(ni // 2 if halved else ni, max_width or ni)
        self.up = Upsample(up, up // 2, upsample, blur=blur, norm=norm, act=act)
        self.norm = nn.BatchNorm2d(skip)
        self.conv1 = conv_layer(ni, self.width, norm=norm, act=act)
        self.conv2 = conv_layer(self.width, self.width, norm=norm, act=act)
        if attention:
            self.conv2.append(SelfAttention(self.width))
        self.act = activation(act)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        joined = self.act(torch.cat([self.up(x, skip.shape[-2:]), self.norm(skip)], dim=1))
        out: Tensor = self.conv2(self.conv1(joined))
        return out


class _ResBlock(nn.Module):
    """Residual block of two convolutions: fastai's `ResBlock`."""

    def __init__(self, width: int, inner: int, *, act: Activation, norm: Norm) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            conv_layer(width, inner, norm=norm, act=act), conv_layer(inner, width, norm=norm, act=None)
        )
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.convs(x) + x)
        return out
