"""Loads a backbone's weights from a local file."""

import pickle
from collections.abc import Iterable
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from .timm.model import convert_timm_weights, is_timm_model, timm_classifiers
from .torchvision_backbone import is_torchvision_model


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Reads a state dict from a safetensors or pickle file, without running any code from it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Expected `weights` to be a file, but there is none at {path}")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"Expected {path} to be a safetensors file or a state dict, but: {error}") from error
    for key in ("state_dict", "model"):  # Lightning's and fastai's checkpoints
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"Expected {path} to hold a state dict of tensors, but got {type(content).__name__}")
    return content


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Loads the weights of a model, under its own parameter names, from a file.

    The classifier's weights are not loaded; they may be missing from the file or have other shapes.

    Raises:
        ValueError: If other weights are missing, unexpected or of another shape.
    """
    weights = read_weights(path)
    classifiers = _classifiers(model)
    if is_timm_model(model):
        try:
            weights = convert_timm_weights(model, weights)
        except (KeyError, RuntimeError, AttributeError, ValueError) as error:
            raise ValueError(
                f"Expected {path} to hold the weights of {type(model).__name__}, but: {error!r}"
            ) from error
    own = model.state_dict()
    missing = [
        n for n in own if n not in weights and not _within(n, classifiers) and not n.endswith("num_batches_tracked")
    ]
    unexpected = [n for n in weights if n not in own and not _within(n, classifiers)]
    shapes = [
        f"{n} {tuple(weights[n].shape)} instead of {tuple(own[n].shape)}"
        for n in own
        if n in weights and weights[n].shape != own[n].shape and not _within(n, classifiers)
    ]
    if missing or unexpected or shapes:
        raise ValueError(
            f"Expected {path} to hold the weights of {type(model).__name__}, but {_count('missing', missing)}, "
            f"{_count('unexpected', unexpected)}, {_count('of another shape', shapes)}"
        )
    model.load_state_dict({n: w for n, w in weights.items() if not _within(n, classifiers)}, strict=False)


def _classifiers(model: nn.Module) -> tuple[str, ...]:
    if is_timm_model(model):
        return timm_classifiers(model)
    if not is_torchvision_model(model):
        return ()
    names = [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    return tuple(names[-1:])


def _within(name: str, modules: Iterable[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def _count(what: str, names: list[str]) -> str:
    return f"{len(names)} {what}" + (f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else "")
