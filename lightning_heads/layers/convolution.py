"""Convolutions with normalization and activation."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

Norm = Literal["batch", "group", "instance", "weight", "spectral", "none"]
Activation = Literal["relu", "leaky_relu", "gelu", "silu"]

_IN_PLACE: dict[str, Callable[..., nn.Module]] = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "silu": nn.SiLU}
NORMS = ("batch", "group", "instance", "weight", "spectral", "none")


def conv_layer(
    ni: int,
    nf: int,
    ks: int = 3,
    *,
    stride: int = 1,
    norm: Norm = "batch",
    act: Activation | None = "relu",
    init: Callable[[Tensor], Tensor] = nn.init.kaiming_normal_,
) -> nn.Sequential:
    """Builds a padded convolution, normalization and an activation, from `(b, ni, h, w)` to `(b, nf, h, w)`.

    The convolution has a bias where no normalization layer follows. Source: fastai's `ConvLayer`.

    Args:
        ni: Channels in.
        nf: Channels out.
        ks: Kernel size.
        stride: Stride.
        norm: Normalization layer, or normalization of the weights: `weight` (Salimans 2016), `spectral` (Miyato 2018).
        act: Activation, or None.
        init: Initializes the weights in place.

    Raises:
        ValueError: If `norm` or `act` is unknown.

    >>> conv_layer(3, 8, norm="none")
    Sequential(
      (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
      (1): ReLU(inplace=True)
    )
    """
    if norm not in NORMS:
        raise ValueError(f"Expected `norm` to be one of {', '.join(NORMS)}, but got {norm!r}")
    layer = norm_layer(norm, nf)
    conv = nn.Conv2d(ni, nf, ks, stride, padding=ks // 2, bias=layer is None)
    init(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    if norm == "weight":
        weight_norm(conv)
    elif norm == "spectral":
        spectral_norm(conv)
    return nn.Sequential(conv, *([] if layer is None else [layer]), *([] if act is None else [activation(act)]))


def convolve_joined(layers: nn.Sequential, maps: Sequence[Tensor]) -> Tensor:
    """Applies layers that begin with a convolution to maps `(b, n, h, w)` as if they were concatenated by channels.

    The first convolution is computed for each map and summed, so that no concatenated copy is allocated or kept for the
    backward pass.

    >>> layers, maps = conv_layer(5, 4), [torch.rand(1, 3, 8, 8), torch.rand(1, 2, 8, 8)]
    >>> torch.allclose(convolve_joined(layers, maps), layers(torch.cat(maps, dim=1)), atol=1e-5)
    True
    """
    conv, *others = layers
    if not isinstance(conv, nn.Conv2d):
        raise TypeError(f"Expected `layers` to begin with a convolution, but got {type(conv).__name__}")
    if conv._forward_pre_hooks or conv._forward_hooks:  # hooks, such as pruning's, run only if the layer is called
        joined: Tensor = layers(torch.cat([*maps], dim=1))
        return joined
    weights = torch.split(conv.weight, [x.shape[1] for x in maps], dim=1)
    biases = [conv.bias, *[None] * (len(maps) - 1)]
    parts = [
        F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation)
        for x, weight, bias in zip(maps, weights, biases, strict=True)
    ]
    out = sum(parts[1:], start=parts[0])
    for layer in others:
        out = layer(out)
    return out


def norm_layer(norm: Norm, nf: int) -> nn.Module | None:
    """Returns the normalization layer for `(b, nf, h, w)`, or None if `norm` is `none` or normalizes weights."""
    if norm == "batch":
        return nn.BatchNorm2d(nf)
    if norm == "instance":
        return nn.InstanceNorm2d(nf, affine=True)
    if norm == "group":
        return nn.GroupNorm(
            next(groups for groups in (32, 16, 8, 4, 2, 1) if groups == 1 or (nf % groups == 0 and nf > groups)), nf
        )
    return None


def activation(name: Activation) -> nn.Module:
    """Returns a new activation layer.

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in ("gelu", *_IN_PLACE):
        raise ValueError(f"Expected `act` to be one of gelu, {', '.join(_IN_PLACE)}, but got {name!r}")
    return nn.GELU() if name == "gelu" else _IN_PLACE[name](inplace=True)
