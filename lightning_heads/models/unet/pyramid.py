"""Feature pyramid of an encoder, extended to half the image's size."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...encoders import Encoder
from ...layers import conv_layer


class CompletePyramid(nn.Module):
    """Feature pyramid of an encoder without missing scales: maps images in 0..1, `(b, c, h, w)`, to feature maps.

    The finest map has the size of the image or half of it, each further one about half the size of the one before. If
    the encoder returns maps of several depths at one scale, each is upsampled to a scale of its own, finer for
    shallower ones, as in Ranftl 2021, Vision Transformers for Dense Prediction. Scales finer than the encoder's come
    from strided convolutions of the image.

    Args:
        encoder: The encoder, from which parameters that its pyramid does not depend on are dropped in place.

    Attributes:
        channels: Channels of each map, from fine to coarse.
        reductions: Input size divided by map size of each map, from fine to coarse.

    Raises:
        ValueError: If the encoder has only one map, so that there are no skip connections.
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        if len(encoder.channels) < 2:
            raise ValueError(
                f"Expected {encoder.meta.name} to give maps of at least two scales or depths for the skip connections "
                f"of a U-Net, but it gives {len(encoder.channels)}"
            )
        encoder.keep_pyramid()
        self.encoder = encoder
        channels, reductions = [*encoder.channels], [*encoder.reductions]
        self.reassemble = nn.ModuleList()
        if len(set(reductions)) == 1:
            scale = reductions[0]
            levels = [level for level in range(len(reductions)) if scale / 2**level >= 1.5]
            channels = [max(channels[-1 - level] // 2**level, 16) for level in reversed(levels)]
            reductions = [max(round(scale / 2**level), 2) for level in reversed(levels)]
            for level, width in zip(reversed(levels), channels, strict=True):
                self.reassemble.append(nn.Conv2d(encoder.channels[-1 - level], width, 1) if level else nn.Identity())
        missing = [2**i for i in range(1, 6) if 1.5 * 2**i <= reductions[0]]
        widths = [encoder.in_channels, *(8 * scale for scale in missing)]
        self.stem = nn.ModuleList(conv_layer(ni, nf, stride=2) for ni, nf in pairwise(widths))
        self.channels = (*widths[1:], *channels)
        self.reductions = (*missing, *reductions)

    @property
    def multiple(self) -> int:
        """Number that height and width should be multiples of, so that each map is exactly half of the one before."""
        reductions = sorted(set(self.encoder.reductions))
        regular = all(coarse == 2 * fine for fine, coarse in pairwise(reductions))
        if self.encoder.meta.fixed_size:
            return 1
        return max(reductions[-1] if regular else 1, self.encoder.meta.multiple)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = self.encoder.pyramid(x)
        if len(self.reassemble):
            maps = maps[-len(self.reassemble) :]
            scales = [2**level for level in reversed(range(len(maps)))]
            maps = [_upsample(conv(m), n) for conv, m, n in zip(self.reassemble, maps, scales, strict=True)]
        fine = []
        image = self.encoder.normalized(x)
        for conv in self.stem:
            image = conv(image)
            fine.append(image)
        maps = [*fine, *maps]
        # in channels-last format an export would compare strides, which depend on the image's size
        return [m.contiguous() for m in maps] if torch.compiler.is_exporting() else maps


def _upsample(x: Tensor, scale: int) -> Tensor:
    height, width = x.shape[-2:]
    return x if scale == 1 else F.interpolate(x, (height * scale, width * scale), mode="bilinear")
