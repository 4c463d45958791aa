"""Builds backbones from names or modules, choosing between timm and torchvision."""

import copy
from difflib import get_close_matches

import timm
import torch
from torch import nn

from ..utils.modules import uncompiled
from ..utils.plain import size_pair
from .backbone import Backbone, SequentialBackbone, sequential_backbone
from .meta import EncoderMeta
from .surgery import ChannelPolicy, Cut, cut_model, input_channels, last_pool, set_in_channels
from .timm.backbone import TimmBackbone
from .timm.model import create_timm_model, is_timm_model, is_timm_name, timm_first_layers, timm_in_channels
from .torchvision_backbone import (
    build_torchvision_backbone,
    create_torchvision_model,
    is_torchvision_model,
    torchvision_names,
)

ImageSize = int | tuple[int, int] | None
_TORCHVISION = "torchvision/"


def create_model(
    name: str, *, pretrained: bool = True, image_size: ImageSize = None, drop_path_rate: float = 0.0
) -> nn.Module:
    """Creates a model with its classifier: timm's if timm has the name, else torchvision's.

    The prefix of `torchvision/resnet50` selects torchvision where both have the name.

    Raises:
        OSError: If pretrained weights cannot be downloaded.
        ValueError: If neither library has the name.
    """
    try:
        return _create_model(name, pretrained, _pair(image_size), drop_path_rate)
    except OSError as error:
        if not pretrained or name.startswith("local-dir:"):
            raise
        reason = str(error).partition("\n")[0]
        raise OSError(
            f"Expected to download the pretrained weights of {name}, but they cannot be reached ({reason}); pass "
            "`weights` with a local file, or `pretrained=False`"
        ) from None


def _create_model(name: str, pretrained: bool, image_size: tuple[int, int] | None, drop_path_rate: float) -> nn.Module:
    bare = name.removeprefix(_TORCHVISION)
    if name == bare and is_timm_name(name):
        return create_timm_model(name, pretrained, image_size, drop_path_rate)
    if bare in torchvision_names():
        if drop_path_rate:
            raise ValueError(f"Expected `drop_path_rate` only with a timm architecture, but {name} is torchvision's")
        return create_torchvision_model(bare, pretrained, image_size)
    close = get_close_matches(bare, dict.fromkeys([*timm.list_models(), *torchvision_names()]), n=3, cutoff=0.5)
    hint = f"; did you mean {', '.join(close)}?" if close else ""
    raise ValueError(f"Expected the name of a timm or torchvision architecture, but got {name!r}{hint}")


def build_backbone(
    model: nn.Module,
    *,
    name: str | None = None,
    image_size: ImageSize = None,
    in_channels: int | None = None,
    readout: bool = True,
) -> Backbone:
    """Builds a backbone: timm's and torchvision's models are cut by their metadata, others at the last pooling layer.

    Raises:
        ValueError: If the model lacks a part that an encoder needs.
    """
    size = _pair(image_size)
    if is_timm_model(model):
        return TimmBackbone(model, size, in_channels or timm_in_channels(model), readout)
    name = (name or type(model).__name__).removeprefix(_TORCHVISION)
    if is_torchvision_model(model):
        return build_torchvision_backbone(model, name, size, readout)
    children = tuple(key for key, _ in model.named_children())
    cut = last_pool(model)
    uncut = cut is None or cut == children[0] or any(True for _ in model.parameters(recurse=False))
    return sequential_backbone(
        model if uncut or cut is None else cut_model(model, cut),
        name=name,
        source="module",
        children=children,
        cut=None if uncut else cut,
        image_size=size or (224, 224),
    )


def in_channels_of(model: nn.Module) -> int:
    """Returns the number of input channels of a model."""
    return timm_in_channels(model) if is_timm_model(model) else input_channels(model)


def set_input(model: nn.Module, in_channels: int, policy: ChannelPolicy) -> None:
    """Changes the number of input channels in place, finding the first layers by timm's metadata where there is any."""
    set_in_channels(model, in_channels, policy, timm_first_layers(model) if is_timm_model(model) else ())


def _pair(size: ImageSize) -> tuple[int, int] | None:
    return None if size is None else size_pair(size)


def model_meta(model: str | nn.Module, image_size: ImageSize = None) -> EncoderMeta:
    """Returns the metadata of a timm or torchvision architecture, or of a module.

    For torchvision's families it comes from a table of child names, for timm from `pretrained_cfg`, `group_matcher` and
    a forward pass on the meta device; nothing is downloaded.

    Args:
        model: A name as `Encoder` takes it, or a model.
        image_size: Height and width to build the backbone for, in pixels; by default its own.

    Raises:
        ValueError: If the name is unknown or the model lacks a part that an encoder needs.

    >>> print(model_meta("torchvision/resnet18"))  # doctest: +NORMALIZE_WHITESPACE
    resnet18 (torchvision)
      cut       -2, before avgpool; the body is conv1, bn1, relu, maxpool, layer1, layer2, layer3, layer4
      split     layer3
      stats     ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
      input     224x224, any size
      features  512 channels (NCHW inside)
      readout   none
      pyramid   64 at 1/2, 64 at 1/4, 128 at 1/8, 256 at 1/16, 512 at 1/32
      license   unknown
    """
    if isinstance(model, str):
        with torch.device("meta" if is_timm_name(model) else "cpu"):
            built = create_model(model, pretrained=False, image_size=image_size)
            return build_backbone(built, name=model, image_size=image_size).meta
    # a copy, as building a backbone removes the classifier in place
    return build_backbone(copy.deepcopy(uncompiled(model)), image_size=image_size).meta


def create_body(
    model: nn.Module | str,
    cut: Cut | None = None,
    in_channels: int | None = None,
    *,
    pretrained: bool = True,
    policy: ChannelPolicy = "fastai",
) -> nn.Module:
    """Cuts a model to its body, which maps images to the last feature map, `(b, c, h, w)`.

    Unlike `Encoder` the body does not normalize its input. Source: fastai's `create_body`.

    Args:
        model: A model, or a name as `Encoder` takes it.
        cut: Index or name of the first child to leave out, or a function from model to body. By default the cut that
            `model_meta` gives, which is the last child with a pooling layer for a user's own module.
        in_channels: Channels of the input images; by default the model's own.
        pretrained: Whether a model given by name has pretrained weights, downloaded where needed.
        policy: How the first layer's filters are adapted if `in_channels` differs from the model's own; see
            `set_in_channels`.

    Raises:
        ValueError: If the name is unknown or there is no such child.

    >>> create_body(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)), in_channels=4)
    Sequential(
      (0): Conv2d(4, 8, kernel_size=(3, 3), stride=(1, 1))
      (1): ReLU()
    )
    """
    if isinstance(model, str):
        model = create_model(model, pretrained=pretrained)
    model = uncompiled(model)
    if in_channels is not None and in_channels != in_channels_of(model):
        set_input(model, in_channels, policy)
    if cut is not None:
        return cut_model(model, cut)
    backbone = build_backbone(model, in_channels=in_channels, readout=False)
    if not isinstance(backbone, SequentialBackbone) or backbone.meta.layout != "NCHW":
        return backbone
    nested = any(isinstance(child, nn.ModuleList) for child in backbone.body.children())
    return backbone if nested else backbone.body  # a `ModuleList` has no `forward`
