"""Creates timm models and reads their metadata."""

import inspect
import json
from typing import Any

import timm
import torch
from timm.models import group_parameters, parse_model_name
from timm.models._hub import load_model_config_from_hf, load_model_config_from_path
from torch import Tensor, nn

from ..backbone import depth_by_definition
from .hub import check_reachable, check_weights_reachable

# timm's models share attributes and methods that no common type declares
TimmModel = Any

_HUB_PREFIXES = ("hf-hub:", "hf_hub:", "local-dir:")
_CONFIG_PREFIX = "config:"


def is_timm_name(name: str) -> bool:
    """Tells whether timm can create `name`: an architecture, with or without a weight tag, or a hub address.

    It may also be a result of `standalone_name`.
    """
    return name.startswith((*_HUB_PREFIXES, _CONFIG_PREFIX)) or timm.is_model(name)


def standalone_name(name: str) -> str:
    """Returns a name that creates the same architecture without the folder or network of a hub address.

    It consists of `config:` and, as JSON, the contents of the `config.json` at that address: the architecture, its
    arguments and the metadata of its weights. Other names are returned unchanged.
    """
    if not name.startswith(_HUB_PREFIXES):
        return name
    source, address = parse_model_name(name)
    load = load_model_config_from_path if source == "local-dir" else load_model_config_from_hf
    metadata, architecture, model_args = load(address)
    metadata = {key: value for key, value in metadata.items() if not key.startswith("label_")}  # of the classifier
    return _CONFIG_PREFIX + json.dumps(
        {"architecture": architecture, "pretrained_cfg": metadata, "model_args": model_args}
    )


def is_timm_model(model: nn.Module) -> bool:
    """Tells whether a module follows timm's model contract."""
    return all(hasattr(model, name) for name in ("pretrained_cfg", "forward_features", "forward_head"))


def create_timm_model(
    name: str, pretrained: bool, image_size: tuple[int, int] | None = None, drop_path_rate: float = 0.0
) -> nn.Module:
    """Creates a timm model with dynamic image size if it supports that, else for `image_size`.

    Raises:
        OSError: If its configuration or weights have to be downloaded and cannot be.
        ValueError: If it does not take `drop_path_rate`.
    """
    if name.startswith(("hf-hub:", "hf_hub:")):
        check_reachable(name.partition(":")[2], "config.json")
    shared: dict[str, Any] = {"drop_path_rate": drop_path_rate} if drop_path_rate else {}
    if name.startswith(_CONFIG_PREFIX):
        config = json.loads(name.removeprefix(_CONFIG_PREFIX))
        name = config["architecture"]
        shared = {**config["model_args"], **shared, "pretrained_cfg": config["pretrained_cfg"]}
    options: list[dict[str, Any]] = [
        {"dynamic_img_size": True},
        *([{"img_size": image_size}] if image_size else []),
        {},
    ]
    for extra in options:
        try:
            with torch.device("meta"):  # cheap, and only the constructor knows which options it accepts
                trial: TimmModel = timm.create_model(name, **{**shared, **extra})
                _, height, width = trial.pretrained_cfg["input_size"]
                # where patches do not divide the model's own size, dynamic sizes do not work at all
                if "dynamic_img_size" in extra and not takes(trial.eval(), torch.zeros(1, 3, height, width)):
                    continue
        except TypeError as error:
            if "unexpected keyword argument" not in str(error):
                raise
        else:
            if pretrained:
                check_weights_reachable(trial.pretrained_cfg)
            return timm.create_model(name, pretrained=pretrained, **{**shared, **extra})
    raise ValueError(f"Expected {name} to take drop_path_rate, but it does not")


def takes(model: TimmModel, x: Tensor) -> bool:
    """Tells whether the model runs on images like `x`."""
    try:
        with torch.no_grad():
            model.forward_features(x)
    except (AssertionError, RuntimeError, ValueError):
        return False
    return True


def convert_timm_weights(model: TimmModel, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Applies the architecture's `checkpoint_filter_fn`, which resizes position embeddings and renames old keys."""
    module = inspect.getmodule(type(model))
    convert = getattr(module, "checkpoint_filter_fn", None)
    converted: dict[str, Tensor] = weights if convert is None else convert(weights, model)
    return converted


def timm_first_layers(model: TimmModel) -> tuple[str, ...]:
    """Returns the names of the layers that take the image, or none if the metadata names layers that do not exist."""
    names = _names(model, "first_conv")
    modules = dict(model.named_modules())
    return names if all(name in modules for name in names) else ()


def timm_in_channels(model: TimmModel) -> int:
    """Returns the number of channels of the input images."""
    layers = timm_first_layers(model)
    layer: nn.Module | None = model.get_submodule(layers[0]) if layers else None
    if not isinstance(layer, nn.Conv2d):
        return 3
    # a space-to-depth stem moves the pixels of each block into channels
    blocks = [module.bs for module in model.modules() if type(module).__name__ == "SpaceToDepth"]
    return layer.in_channels // blocks[0] ** 2 if blocks else layer.in_channels


def _names(model: TimmModel, key: str) -> tuple[str, ...]:
    value = model.pretrained_cfg.get(key) or ()
    return (value,) if isinstance(value, str) else tuple(value)


def timm_classifiers(model: TimmModel) -> tuple[str, ...]:
    """Returns the names of the model's classifiers, from its metadata."""
    return _names(model, "classifier")


def timm_depths(model: TimmModel) -> dict[str, int]:
    """Returns the depth of each parameter, by timm's coarse groups or else by the order of definition."""
    try:
        matcher = model.group_matcher(coarse=True)
    except (AssertionError, AttributeError, NotImplementedError):
        return depth_by_definition(model)
    depths: dict[str, int] = group_parameters(model, matcher, reverse=True)
    return depths
