"""Determines the metadata of a timm model from its configuration and a forward pass."""

from typing import Any

import torch
from torch import Tensor, nn

from ...utils.modules import eval_mode
from ..backbone import group_heads, pyramid_levels, split_names
from ..meta import EncoderMeta, Layout
from ..unused_parameters import recorded_calls, unused_parameters
from .model import TimmModel, takes, timm_classifiers, timm_depths


def probe(
    model: TimmModel, image_size: tuple[int, int] | None, in_channels: int, readout: bool
) -> tuple[EncoderMeta, list[str], list[str]]:
    """Reads a model's configuration and runs one image of zeros, in evaluation mode and on the model's device.

    Returns:
        The metadata, the names of the parameters that the output of `TimmBackbone.forward` does not depend on, and the
        names of the modules that run in it.
    """
    cfg = model.pretrained_cfg
    name = cfg.get("architecture") or type(model).__name__
    size = image_size or (cfg["input_size"][1], cfg["input_size"][2])
    first = next(model.parameters())
    x = torch.zeros(1, in_channels, *size, device=first.device, dtype=first.dtype)
    try:
        with eval_mode(model), torch.enable_grad():
            with recorded_calls(model) as running:
                features, last, layout = _features(model, x)
            with recorded_calls(model) as called:
                vector = model.forward_head(features, pre_logits=True)
            maps = _intermediates(model, x)
            fixed = bool(cfg.get("fixed_input_size")) and not takes(model, torch.cat([x, x], dim=-1))
    except (AttributeError, NotImplementedError, TypeError, AssertionError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"Expected {name} to give features and a classifier's input for {size[0]}x{size[1]} images, but: {error}"
        ) from error

    parts = _readout(model, called, features, last, vector, layout) if readout else ()
    unused = unused_parameters(model, last, *([vector] if parts else []))
    indices = pyramid_levels(maps)
    reductions = tuple(round(size[0] / maps[i].shape[-2]) for i in indices)
    groups = split_names({key: d for key, d in timm_depths(model).items() if key not in unused}, 2)
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
        multiple=1 if fixed else _multiple(model, x, max(reductions, default=1), layout),
        layout=layout,
        num_features=last.shape[1],
        readout=parts,
        readout_features=vector.shape[1] if parts else 0,
        channels=tuple(maps[i].shape[1] for i in indices),
        reductions=reductions,
        pyramid=tuple(indices),
        interpolation=cfg.get("interpolation", "bicubic"),
        license=cfg.get("license") or "unknown",
    )
    return meta, unused, [*running, *(called if parts else [])]


def _readout(
    model: TimmModel, called: list[str], features: Any, last: Tensor, vector: Tensor, layout: Layout
) -> tuple[str, ...]:
    """Returns what the classifier's input has beyond the average of the last map; empty if it is just that average."""
    parts = _short_names(model, _with_parameters(model, called))
    if getattr(model, "num_prefix_tokens", 0) > 0:
        return ("class token", *parts)
    several = not isinstance(features, Tensor)
    more_tokens = layout == "tokens" and not several and features.shape[1] != last[0, 0].numel()
    return parts or (("own pooling",) if several or more_tokens or vector.shape[1] != last.shape[1] else ())


def _features(model: TimmModel, x: Tensor) -> tuple[Any, Tensor, Layout]:
    """Returns the input of the model's head, the last feature map `(b, c, h, w)`, and the layout of the former."""
    features = model.forward_features(x)
    layout = _layout(model, features)
    if layout == "tokens":
        features, grids = tokens_and_grids(model, x)
        return features, grids[-1], layout
    return features, features.permute(0, 3, 1, 2) if layout == "NHWC" else features, layout


def tokens_and_grids(model: TimmModel, x: Tensor, indices: int | list[int] = 1) -> tuple[Any, list[Tensor]]:
    """Returns the input of the model's head, and maps of tokens `(b, c, h, w)`, after the final norm if possible.

    Args:
        model: A timm model whose layout is `tokens`.
        x: Images `(b, c, h, w)`.
        indices: Blocks whose outputs are returned as maps, in ascending order, or the number of last blocks.
    """
    norm = type(model).__name__ != "Hiera"  # which normalizes after pooling only
    features, grids = model.forward_intermediates(x, indices=indices, norm=norm, output_fmt="NCHW")
    return features, grids


def _layout(model: TimmModel, features: Any) -> Layout:
    if not isinstance(features, Tensor) or features.ndim != 4:
        return "tokens"
    if getattr(model, "output_fmt", None) == "NHWC":
        return "NHWC"
    return "NCHW" if features.shape[1] == model.num_features else "NHWC"


@torch.no_grad()
def _intermediates(model: TimmModel, x: Tensor) -> list[Tensor]:
    """Returns every intermediate map, or none if the installed release of timm lacks the method for this model."""
    if not hasattr(model, "forward_intermediates"):
        return []
    maps: list[Tensor] = model.forward_intermediates(x, output_fmt="NCHW", intermediates_only=True)
    return maps


def _multiple(model: TimmModel, x: Tensor, coarsest: int, layout: Layout) -> int:
    """Returns the number whose multiples alone are accepted as height and width, else 1.

    It is the size that the metadata restricts the model to, or the size of the patches that become tokens.
    """
    cfg = model.pretrained_cfg
    size: int | None = (cfg.get("min_input_size") or (x.shape if cfg.get("fixed_input_size") else [None]))[-1]
    with eval_mode(model):
        if size is not None and not takes(model, x.new_zeros(1, x.shape[1], size + coarsest, size + coarsest)):
            return size
        whole = layout == "tokens" and not takes(model, x.new_zeros(1, x.shape[1], x.shape[2] + 1, x.shape[3] + 1))
        return coarsest if whole else 1


def _with_parameters(model: nn.Module, called: list[str]) -> list[str]:
    """Returns the called modules that directly hold parameters."""
    return [name for name in called if next(model.get_submodule(name).parameters(recurse=False), None) is not None]


def _short_names(model: nn.Module, names: list[str]) -> tuple[str, ...]:
    """Shortens module names to the model's direct child, or to its child if it holds the classifier too."""
    shared = {name.split(".")[0] for name in timm_classifiers(model) if "." in name}
    parts = [name.split(".") for name in names]
    return tuple(dict.fromkeys(".".join(p[: 2 if p[0] in shared else 1]) for p in parts))
