"""Heads that map a feature map to a map of the image's size, without skip connections."""

from typing import Literal

from torch import nn

from ..layers import PixelShuffleICNR, SigmoidRange, conv_layer

DenseUpsample = Literal["nearest", "bilinear", "transposed", "pixel_shuffle"]


def create_dense_head(
    nf: int,
    n_out: int,
    reduction: int = 32,
    *,
    upsample: DenseUpsample = "nearest",
    width: int = 256,
    y_range: tuple[float, float] | None = None,
) -> nn.Sequential:
    """Builds a head that upsamples a feature map to the image's size: `(b, nf, h, w)` to `(b, n_out, h', w')`.

    Each stage doubles the size, with a convolution, batch norm and ReLU; h' is h times the smallest power of two that
    is at least `reduction`.

    Args:
        nf: Channels of the feature map.
        n_out: Channels of the output.
        reduction: Image size divided by map size.
        upsample: How a stage doubles: by `nearest` or `bilinear` interpolation before its convolution (Odena 2016), by
            a `transposed` convolution (Long 2015), or by `pixel_shuffle` (Shi 2016).
        width: Channels of the first stage; each further one has half of them, 16 at least.
        y_range: Range that a final sigmoid scales the outputs to.

    Raises:
        ValueError: If `upsample` is unknown, or a width or `reduction` is below 1.

    >>> import torch
    >>> create_dense_head(512, 2)(torch.rand(1, 512, 3, 4)).shape
    torch.Size([1, 2, 96, 128])
    """
    if min(nf, n_out, reduction, width) < 1:
        raise ValueError(
            "Expected `nf`, `n_out`, `reduction` and `width` to be at least 1, but got "
            f"{nf}, {n_out}, {reduction} and {width}"
        )
    stages: list[nn.Module] = []
    for _ in range((reduction - 1).bit_length()):
        stages.append(_upsampling_stage(nf, width, upsample))
        nf, width = width, max(width // 2, min(width, 16))
    out = conv_layer(nf, n_out, 1, norm="none", act=None)
    return nn.Sequential(*stages, out, *([] if y_range is None else [SigmoidRange(*y_range)]))


def _upsampling_stage(ni: int, nf: int, upsample: DenseUpsample) -> nn.Sequential:
    if upsample in ("nearest", "bilinear"):
        return nn.Sequential(nn.Upsample(scale_factor=2, mode=upsample), *conv_layer(ni, nf))
    if upsample == "pixel_shuffle":
        return nn.Sequential(PixelShuffleICNR(ni, nf), *conv_layer(nf, nf))
    if upsample == "transposed":
        conv = nn.ConvTranspose2d(ni, nf, 4, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out")
        return nn.Sequential(conv, nn.BatchNorm2d(nf), nn.ReLU(inplace=True))
    raise ValueError(f"Expected `upsample` to be nearest, bilinear, transposed or pixel_shuffle, but got {upsample!r}")
