"""Reads checkpoints of tasks, and compares them with a task."""

import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from ..utils.modules import uncompiled_name
from ..utils.plain import plain_values

Checkpoint = Mapping[str, Any]


def read_checkpoint(path: Path, weights_only: bool = True) -> Checkpoint:
    """Reads a checkpoint, by default without running code from it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no checkpoint of plain values.
    """
    if not path.is_file():
        raise FileNotFoundError(f"Expected a checkpoint, but there is no file {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=weights_only)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"Expected {path} to be a checkpoint of plain values, but: {error}") from error
    return checkpoint if isinstance(checkpoint, dict) else {}


def hyperparameters(checkpoint: Checkpoint) -> dict[str, Any]:
    """Returns the hyperparameters of a checkpoint's task, without those that `LightningCLI` adds for its own use."""
    saved = checkpoint.get(L.LightningModule.CHECKPOINT_HYPER_PARAMS_KEY) or {}
    return {name: value for name, value in saved.items() if name[:1] != "_"}


def class_path(task: type) -> str:
    """Returns the import path of a task; that of this package's tasks is the public one, which stays valid."""
    package, _, _ = __name__.partition(".")
    module = package if task.__module__.startswith(f"{package}.") else task.__module__
    return f"{module}.{task.__qualname__}"


def saved_class_path(checkpoint: Checkpoint) -> str | None:
    """Returns the import path of the class of a checkpoint's task, or None if it is not in the checkpoint."""
    hparams = checkpoint.get(L.LightningModule.CHECKPOINT_HYPER_PARAMS_KEY) or {}
    found: str | None = checkpoint.get("class_path") or hparams.get("_class_path")
    return found


def imported_class(path: str) -> type | None:
    """Returns a class of a module that is already imported, as a file must not choose which code runs."""
    module, _, name = path.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, type) else None


def check_class(task: type, checkpoint: Checkpoint) -> None:
    """Checks that a checkpoint is of a class, of one of its base classes or of a subclass.

    Classes are compared by their import paths, as a notebook may define the same class again. A class whose module is
    not imported is not checked.

    Raises:
        ValueError: If it is of another class.
    """
    path = saved_class_path(checkpoint)
    saved = None if path is None else imported_class(path)
    if path is None or saved is None:
        return
    if path not in _base_paths(task) and class_path(task) not in _base_paths(saved):
        raise ValueError(f"Expected a checkpoint of {class_path(task)}, but got one of {path}")


def unfit_hyperparameters(task: L.LightningModule, checkpoint: Checkpoint) -> dict[str, tuple[Any, Any]]:
    """Returns hyperparameters that make a checkpoint's weights unfit for a task.

    They are all that differ if parameters or buffers do not have the same names and shapes, and otherwise those that
    differ in a buffer of their name, such as an encoder's `mean`, which the checkpoint's would replace.

    Returns:
        The value in the task and that in the checkpoint of each, by name.
    """
    saved, own = hyperparameters(checkpoint), {**task.hparams}
    differing = {name: (own[name], saved[name]) for name in own if name in saved and not equal(own[name], saved[name])}
    weights = checkpoint.get("state_dict", {})
    if _shapes(task.state_dict()) != _shapes(weights):
        return differing
    replaced = {
        name.rpartition(".")[2]
        for name, buffer in task.named_buffers()
        if name in weights and not equal(buffer, weights[name])
    }
    return {name: values for name, values in differing.items() if name in replaced}


def equal(value: Any, other: Any) -> bool:
    """Returns whether two hyperparameters have equal values, as numbers, tuples, lists or tensors."""
    first, second = (each.tolist() if isinstance(each, Tensor) else plain_values(each) for each in (value, other))
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return [*first] == [*second]
    return bool(first == second)


def _shapes(state: Mapping[str, Any]) -> dict[str, torch.Size]:
    return {uncompiled_name(name): value.shape for name, value in state.items() if isinstance(value, Tensor)}


def _base_paths(task: type) -> set[str]:
    own = [each for each in task.__mro__ if issubclass(each, L.LightningModule)]
    return {class_path(each) for each in own} - {class_path(L.LightningModule)}
