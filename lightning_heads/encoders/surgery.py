"""Cuts a pretrained model, and changes the number of its input channels."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

ChannelPolicy = Literal["fastai", "timm", "repeat", "mean"]
Cut = int | str | Callable[[nn.Module], nn.Module]

_POOLS = ("Pool1d", "Pool2d", "Pool3d")


def cut_model(model: nn.Module, cut: Cut) -> nn.Module:
    """Returns the part of `model` before `cut`: the index or name of a child, or a function that cuts.

    Raises:
        ValueError: If there is no such child, or parameters that the model itself holds would be lost.
    """
    if callable(cut):
        return cut(model)
    children = OrderedDict(model.named_children())
    names = [*children]
    if isinstance(cut, str):
        if cut not in children:
            raise ValueError(
                f"Expected `cut` to name a child of {type(model).__name__} ({', '.join(names)}), got {cut!r}"
            )
        cut = names.index(cut)
    kept = names[:cut]
    if not kept:
        raise ValueError(f"Expected `cut` to keep at least one of the children {', '.join(names)}, but got {cut}")
    if own := [name for name, _ in model.named_parameters(recurse=False)]:
        raise ValueError(
            f"Expected {type(model).__name__} to hold its parameters in its children, but a cut by children would lose "
            f"{', '.join(own)}; pass `cut` as a function"
        )
    return nn.Sequential(OrderedDict((name, children[name]) for name in kept))


def last_pool(model: nn.Module) -> str | None:
    """Returns the name of the last direct child that is or contains a pooling layer, fastai's default cut."""
    for name, child in reversed([*model.named_children()]):
        if any(type(module).__name__.endswith(_POOLS) for module in child.modules()):
            return name
    return None


def set_in_channels(
    model: nn.Module, in_channels: int, policy: ChannelPolicy = "fastai", names: tuple[str, ...] = ()
) -> None:
    """Changes the number of input channels of the first convolution in place, adapting its filters, keeping its bias.

    Args:
        model: A model with a first convolution, or linear patch embedding, for RGB images.
        in_channels: Channels of the input images.
        policy: How the RGB filters are adapted to n channels. `fastai`: their sum for 1 channel, the first two times
            1.5 for 2, the three followed by zeros for more. `timm`: repeated and scaled by 3/n (their sum for 1
            channel). `repeat`: repeated unscaled. `mean`: the three followed by their mean for more channels, that mean
            scaled by 3/n for fewer.
        names: Names of the first layers; by default the first convolution in the order of definition.

    Raises:
        ValueError: If there is no such layer or it does not take RGB images.
    """
    layers = [model.get_submodule(name) for name in names] or [
        module for module in model.modules() if isinstance(module, nn.Conv2d)
    ][:1]
    if not layers:
        raise ValueError(f"Expected {type(model).__name__} to have a first convolution to change, but it has none")
    if in_channels < 1:
        raise ValueError(f"Expected `in_channels` to be at least 1, but got {in_channels}")
    for layer in layers:
        _adapt_layer(layer, in_channels, policy)


def input_channels(model: nn.Module) -> int:
    """Returns the number of input channels of the first convolution, or 3 if there is none."""
    conv = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    return 3 if conv is None else conv.in_channels


def _adapt_layer(layer: nn.Module, in_channels: int, policy: ChannelPolicy) -> None:
    if not isinstance(layer, (nn.Conv2d, nn.Linear)):
        raise ValueError(f"Expected the first layer to be a convolution or linear, but got {type(layer).__name__}")
    conv = isinstance(layer, nn.Conv2d)
    width = layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features
    if width == in_channels and conv:
        return
    if width % 3 or (isinstance(layer, nn.Conv2d) and layer.groups > 1):
        raise ValueError(
            f"Expected the first layer to take RGB, to adapt it to {in_channels} channels, but it takes {width}"
        )
    weight = layer.weight.detach()
    # space-to-depth stems and linear patch embeddings take several pixels at once, the channels of each adjacent
    pixels = weight.reshape(len(weight), width // 3, 3, *weight.shape[2:])
    adapted = _adapt_filters(pixels.transpose(1, 2), in_channels, policy).transpose(1, 2).flatten(1, 2)
    layer.weight = nn.Parameter(adapted.contiguous(), layer.weight.requires_grad)
    if isinstance(layer, nn.Conv2d):
        layer.in_channels = adapted.shape[1]
    else:
        layer.in_features = adapted.shape[1]


def _adapt_filters(rgb: Tensor, n: int, policy: ChannelPolicy) -> Tensor:
    """Adapts filters `(out, 3, ...)` to `(out, n, ...)`."""
    repeated = torch.cat([rgb] * (-(-n // 3)), dim=1)[:, :n]
    mean = rgb.mean(dim=1, keepdim=True)
    if n == 3:
        return rgb
    if policy == "repeat":
        return repeated
    if policy == "timm":
        return rgb.sum(dim=1, keepdim=True) if n == 1 else repeated * (3 / n)
    if policy == "mean":
        if n < 3:
            return mean.expand_as(repeated) * (3 / n)
        return torch.cat([rgb, mean.expand_as(repeated[:, 3:])], dim=1)
    if policy == "fastai":
        if n == 1:
            return rgb.sum(dim=1, keepdim=True)
        return repeated * 1.5 if n == 2 else torch.cat([rgb, torch.zeros_like(repeated[:, 3:])], dim=1)
    raise ValueError(f"Expected `policy` to be fastai, timm, repeat or mean, but got {policy!r}")
