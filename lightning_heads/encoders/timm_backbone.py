"""timm's architectures as backbones, everything derived from their metadata and a forward pass."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import timm
import torch
from timm.models import group_parameters
from torch import Tensor, nn

from .backbone import (
    Backbone,
    append_readout,
    channels_first,
    depth_by_definition,
    group_heads,
    last_of_each_size,
    split_names,
)
from .meta import EncoderMeta, Layout

# timm's contract is one of attributes, which types of modules cannot say
TimmModel = Any

_HUB_PREFIXES = ("hf-hub:", "hf_hub:", "local-dir:")


class TimmBackbone(Backbone):
    """A timm model without its classifier.

    `forward_features` gives the map where its result is one; token sequences, and models with several, go through
    `forward_intermediates`, which restores the grid. The classifier's input comes from `forward_head`.

    Args:
        model: A timm model; its classifiers are removed in place.
        image_size: Size to try it at, in pixels; its own by default.
        in_channels: Channels of the images.
        readout: Whether `forward` appends the classifier's input where that is more than the map's average.

    Raises:
        ValueError: If a part is missing that an encoder needs.
    """

    body: TimmModel

    def __init__(
        self,
        model: TimmModel,
        image_size: tuple[int, int] | None = None,
        in_channels: int = 3,
        readout: bool = True,
    ) -> None:
        super().__init__()
        _remove_classifiers(model)
        self.meta, unused = _probe(model, image_size, in_channels, readout)
        for name in unused:  # a parameter without a gradient breaks DDP
            owner, _, leaf = name.rpartition(".")
            model.get_submodule(owner).register_parameter(leaf, None)
        self.body = model

    def forward(self, x: Tensor) -> Tensor:
        if self.meta.layout == "tokens":
            features, x = _tokens_and_grid(self.body, x)
        else:
            features = self.body.forward_features(x)
            x = channels_first(features, self.meta)
        if not self.meta.readout:
            return x
        return append_readout(x, self.body.forward_head(features, pre_logits=True))

    def pyramid(self, x: Tensor) -> list[Tensor]:
        indices = [*self.meta.pyramid]
        maps: list[Tensor] = self.body.forward_intermediates(
            x, indices=indices, output_fmt="NCHW", intermediates_only=True
        )
        return sorted(maps, key=lambda m: -m.shape[-2])

    def depths(self) -> dict[str, int]:
        return {f"body.{name}": depth for name, depth in _depths(self.body).items()}

    def set_grad_checkpointing(self, enable: bool) -> None:
        try:
            self.body.set_grad_checkpointing(enable)
        except (AssertionError, AttributeError, NotImplementedError) as error:
            raise ValueError(f"Expected {self.meta.name} to support gradient checkpointing, but it does not") from error


def is_timm_name(name: str) -> bool:
    """Tells whether timm can create `name`: an architecture, with or without a weight tag, or a hub address."""
    return name.startswith(_HUB_PREFIXES) or timm.is_model(name)


def is_timm_model(model: nn.Module) -> bool:
    """Tells whether a module follows timm's model contract."""
    return all(hasattr(model, name) for name in ("pretrained_cfg", "forward_features", "forward_head"))


def create_timm_model(
    name: str, pretrained: bool, image_size: tuple[int, int] | None = None, drop_path_rate: float = 0.0
) -> nn.Module:
    """Creates a timm model that takes varying sizes where it can, else the given one."""
    shared: dict[str, Any] = {"drop_path_rate": drop_path_rate} if drop_path_rate else {}
    options: list[dict[str, Any]] = [
        {"dynamic_img_size": True},
        *([{"img_size": image_size}] if image_size else []),
        {},
    ]
    for extra in options:
        try:
            with torch.device("meta"):  # costs little, and only the constructor knows what it takes
                timm.create_model(name, **shared, **extra)
        except TypeError as error:
            if "unexpected keyword argument" not in str(error):
                raise
        else:
            return timm.create_model(name, pretrained=pretrained, **shared, **extra)
    raise ValueError(f"Expected {name} to take {', '.join(shared)}, but it does not")


def convert_timm_weights(model: TimmModel, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Runs the architecture's own filter over a state dict, which resizes position embeddings and renames old keys."""
    module = inspect.getmodule(type(model))
    convert = getattr(module, "checkpoint_filter_fn", None)
    converted: dict[str, Tensor] = weights if convert is None else convert(weights, model)
    return converted


def timm_first_layers(model: TimmModel) -> tuple[str, ...]:
    """Returns the names of the layers that see the image, where the metadata is right about them."""
    names = _names(model, "first_conv")
    modules = dict(model.named_modules())
    return names if all(name in modules for name in names) else ()


def timm_in_channels(model: TimmModel) -> int:
    """Returns how many channels the images have."""
    layers = timm_first_layers(model)
    layer: nn.Module | None = model.get_submodule(layers[0]) if layers else None
    if isinstance(layer, nn.Conv2d) and layer.in_channels % 3:
        return layer.in_channels
    return 3  # a multiple of 3 may be several pixels of RGB


def _names(model: TimmModel, key: str) -> tuple[str, ...]:
    value = model.pretrained_cfg.get(key) or ()
    return (value,) if isinstance(value, str) else tuple(value)


def timm_classifiers(model: TimmModel) -> tuple[str, ...]:
    """Returns the names of the classifiers."""
    return _names(model, "classifier")


def _remove_classifiers(model: TimmModel) -> None:
    modules = dict(model.named_modules())
    for name in timm_classifiers(model):
        if name in modules:
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, nn.Identity())


def _probe(
    model: TimmModel, image_size: tuple[int, int] | None, in_channels: int, readout: bool
) -> tuple[EncoderMeta, list[str]]:
    """Reads the metadata and runs one image of zeros, in evaluation mode, on the device that the model is on.

    Returns with it the names of the parameters that what `forward` gives does not depend on.
    """
    cfg = model.pretrained_cfg
    name = cfg.get("architecture") or type(model).__name__
    size = image_size or (cfg["input_size"][1], cfg["input_size"][2])
    first = next(model.parameters())
    x = torch.zeros(1, in_channels, *size, device=first.device, dtype=first.dtype)
    training = model.training
    model.eval()
    try:
        with torch.enable_grad():
            features, last, layout = _features(model, x)
            with _record_calls(model) as called:
                vector = model.forward_head(features, pre_logits=True)
        with torch.no_grad():
            maps = model.forward_intermediates(x, output_fmt="NCHW", intermediates_only=True)
        fixed = bool(cfg.get("fixed_input_size")) and not _takes(model, x.new_zeros(1, in_channels, *_other(size)))
    except (AttributeError, NotImplementedError, TypeError, AssertionError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"Expected {name} to give features, a classifier's input and intermediate maps for {size[0]}x{size[1]} "
            f"images, but: {error}"
        ) from error
    finally:
        model.train()  # lets go of what some models cache in evaluation
        model.train(training)

    reached = _reached(last, vector) if readout else _reached(last)
    unused = [
        key for key, parameter in model.named_parameters() if parameter.requires_grad and id(parameter) not in reached
    ]
    parts: tuple[str, ...] = ()
    if readout:
        parts = _short(model, _owners(model, called))
        if getattr(model, "num_prefix_tokens", 0) > 0:
            parts = ("class token", *parts)
        elif not parts and (vector.shape[1] != last.shape[1] or not isinstance(features, Tensor)):
            parts = ("own pooling",)
    indices = last_of_each_size(maps)
    groups = split_names({key: d for key, d in _depths(model).items() if key not in unused}, 2)
    meta = EncoderMeta(
        name=name,
        source="timm",
        children=tuple(key for key, _ in model.named_children()),
        cut=next(iter(called), "").split(".")[0] or None,
        split=group_heads(groups),
        mean=tuple(cfg["mean"]),
        std=tuple(cfg["std"]),
        input_size=size,
        fixed_size=fixed,
        layout=layout,
        num_features=last.shape[1],
        readout=parts,
        readout_features=vector.shape[1] if parts else 0,
        channels=tuple(maps[i].shape[1] for i in indices),
        reductions=tuple(round(size[0] / maps[i].shape[-2]) for i in indices),
        pyramid=tuple(indices),
        interpolation=cfg.get("interpolation", "bicubic"),
        license=cfg.get("license") or "unknown",
    )
    return meta, unused


def _features(model: TimmModel, x: Tensor) -> tuple[Any, Tensor, Layout]:
    """Returns the features as the model's head takes them, the last map `(b, c, h, w)`, and the features' layout."""
    features = model.forward_features(x)
    layout = _layout(model, features)
    if layout == "tokens":
        features, last = _tokens_and_grid(model, x)
        return features, last, layout
    return features, features.permute(0, 3, 1, 2) if layout == "NHWC" else features, layout


def _tokens_and_grid(model: TimmModel, x: Tensor) -> tuple[Any, Tensor]:
    """Returns token sequences as the model's head takes them, and the last grid of them, normalised if possible."""
    norm = type(model).__name__ != "Hiera"  # the one that normalises after pooling only
    features, maps = model.forward_intermediates(x, indices=1, norm=norm, output_fmt="NCHW")
    return features, maps[-1]


def _layout(model: TimmModel, features: Any) -> Layout:
    if not isinstance(features, Tensor) or features.ndim != 4:
        return "tokens"
    if getattr(model, "output_fmt", None) == "NHWC":
        return "NHWC"
    return "NCHW" if features.shape[1] == model.num_features else "NHWC"


def _takes(model: TimmModel, x: Tensor) -> bool:
    """Tells whether the model runs on images like `x`."""
    try:
        with torch.no_grad():
            model.forward_features(x)
    except (AssertionError, RuntimeError, ValueError):
        return False
    return True


def _other(size: tuple[int, int]) -> tuple[int, int]:
    return size[0] + 32, size[1] + 64


def _reached(*outputs: Tensor) -> set[int]:
    """Returns the ids of the parameters that outputs depend on, by walking the graph back without computing."""
    nodes = [output.grad_fn for output in outputs if output.grad_fn is not None]
    seen, parameters = {*nodes}, set()
    while nodes:
        node = nodes.pop()
        if hasattr(node, "variable"):
            parameters.add(id(node.variable))
        fresh = {following for following, _ in node.next_functions if following is not None} - seen
        seen |= fresh
        nodes += fresh
    return parameters


@contextmanager
def _record_calls(model: nn.Module) -> Iterator[list[str]]:
    """Collects the names of the submodules that run, in order."""
    called: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda _module, _args, name=name: called.append(name))
        for name, module in model.named_modules()
        if name
    ]
    try:
        yield called
    finally:
        for hook in hooks:
            hook.remove()


def _owners(model: nn.Module, called: list[str]) -> list[str]:
    """Returns which of the modules that ran hold parameters of their own."""
    return [name for name in called if next(model.get_submodule(name).parameters(recurse=False), None) is not None]


def _short(model: nn.Module, owners: list[str]) -> tuple[str, ...]:
    """Shortens module names to the direct child, or to the child's child where the classifier is beside it."""
    shared = {name.split(".")[0] for name in timm_classifiers(model) if "." in name}
    parts = [name.split(".") for name in owners]
    return tuple(dict.fromkeys(".".join(p[: 2 if p[0] in shared else 1]) for p in parts))


def _depths(model: TimmModel) -> dict[str, int]:
    try:
        matcher = model.group_matcher(coarse=True)
    except (AssertionError, AttributeError, NotImplementedError):
        return depth_by_definition(model)
    depths: dict[str, int] = group_parameters(model, matcher, reverse=True)
    return depths
