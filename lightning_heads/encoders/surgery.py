"""Operations on a pretrained model: cutting it, and changing the number of its input channels."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

ChannelPolicy = Literal["fastai", "timm", "repeat", "mean"]
Cut = int | str | Callable[[nn.Module], nn.Module]

_POOLS = ("Pool1d", "Pool2d", "Pool3d")


def cut_model(model: nn.Module, cut: Cut) -> nn.Module:
    """Returns the part of `model` before `cut`: an index of its children, a child's name, or a function that cuts.

    Raises:
        ValueError: If there is no such child, or parameters of the model's own would be lost.
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
    """Changes in place how many channels the first convolution takes, keeping its filters and its bias.

    Args:
        model: A model with a first convolution, or linear patch embedding, for RGB images.
        in_channels: Channels of the input images.
        policy: What becomes of the RGB filters. `fastai`: 1 channel takes their sum, 2 the first two times 1.5, more
            the three and then zeros. `timm`: repeated and scaled by 3/n (1 channel: their sum). `repeat`: repeated as
            they are. `mean`: more channels take the mean of the three, fewer that mean scaled by 3/n.
        names: Names of the first layers; by default the first convolution in the order of definition.

    Raises:
        ValueError: If there is no such layer or it does not take RGB.
    """
    layers = [model.get_submodule(name) for name in names] or [
        module for module in model.modules() if isinstance(module, nn.Conv2d)
    ][:1]
    if not layers:
        raise ValueError(f"Expected {type(model).__name__} to have a first convolution to change, but it has none")
    if in_channels < 1:
        raise ValueError(f"Expected `in_channels` to be at least 1, but got {in_channels}")
    for layer in layers:
        _widen(layer, in_channels, policy)


def input_channels(model: nn.Module) -> int:
    """Returns how many channels the first convolution takes, 3 where there is none."""
    conv = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    return 3 if conv is None else conv.in_channels


def _widen(layer: nn.Module, in_channels: int, policy: ChannelPolicy) -> None:
    if not isinstance(layer, (nn.Conv2d, nn.Linear)):
        raise ValueError(f"Expected the first layer to be a convolution or linear, but got {type(layer).__name__}")
    conv = isinstance(layer, nn.Conv2d)
    width = layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features
    if width == in_channels and conv:
        return
    if width % 3 or (isinstance(layer, nn.Conv2d) and layer.groups > 1):
        raise ValueError(f"Expected a first layer for RGB to give it {in_channels} channels, but it takes {width}")
    weight = layer.weight.detach()
    # space-to-depth stems and linear patch embeddings see several pixels at once, channels last
    pixels = weight.reshape(len(weight), width // 3, 3, *weight.shape[2:])
    widened = _widen_filters(pixels.transpose(1, 2), in_channels, policy).transpose(1, 2).flatten(1, 2)
    layer.weight = nn.Parameter(widened.contiguous(), layer.weight.requires_grad)
    if isinstance(layer, nn.Conv2d):
        layer.in_channels = widened.shape[1]
    else:
        layer.in_features = widened.shape[1]


def _widen_filters(rgb: Tensor, n: int, policy: ChannelPolicy) -> Tensor:
    """Turns filters `(out, 3, ...)` into `(out, n, ...)`."""
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
