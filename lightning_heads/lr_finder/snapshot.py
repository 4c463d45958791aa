"""Snapshots a trainer, a task and its data, and restores them bit-exactly after a trial run."""

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from types import ModuleType
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _BaseDataLoaderIter

from ..utils.random_state import random_state, restore_random_state

_Restore = Callable[[], Any]

_CONTAINERS = (dict, list, set, deque)
_MAX_ITEMS = 100  # longest container whose items are searched; longer ones hold file names and samples
_OPAQUE = (type, ModuleType, L.Trainer, Tensor, _BaseDataLoaderIter)


@contextmanager
def preserved_state(trainer: L.Trainer, task: L.LightningModule, *others: object) -> Iterator[None]:
    """Snapshots trainer, task, data and random state; restores them bit-exactly on exit or exception.

    These are restored, so that a later fit gives the same result as without the block:

    - random state of Python, NumPy, torch and its CUDA device, and of generators found in the task and the others
    - parameters, buffers and other tensors of the task, `requires_grad`, training modes, attributes, and optimizers
      that are its attributes
    - attributes of the trainer, its strategy, precision plugin, loops and connectors, with callbacks, loggers,
      progress, limits, metrics, optimizers and gradient scaler
    - attributes and state dicts of the others: loaders, samplers, data sets, data modules and callbacks. Persistent
      workers of a loader are not used within the block; the loader starts new ones

    State that is nested deeper, such as arrays that a data set changes in place, and files are not restored.

    Args:
        trainer: The trainer.
        task: The module that is fitted.
        *others: Data and callbacks that are used in the block.
    """
    with ExitStack() as stack:
        stack.callback(restore_random_state, random_state())
        for part in _trainer_parts(trainer):
            stack.callback(_snapshot_attributes(part))
        for found in _reachable([task, *task.modules(), *others]):
            for restore in _snapshot(found):
                stack.callback(restore)
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None:
            setattr(trainer.precision_plugin, "scaler", deepcopy(scaler))  # noqa: B010  # few plugins have one
        yield


def _trainer_parts(trainer: L.Trainer) -> Iterator[object]:
    """Yields the trainer, its strategy and precision plugin, and Lightning's own parts of it: loops, connectors."""
    yield trainer.strategy
    yield trainer.precision_plugin
    seen, found = {id(trainer)}, [trainer]
    while found:
        part = found.pop()
        yield part
        for value in vars(part).values():
            is_lightnings = type(value).__module__.startswith(("lightning.pytorch.trainer", "lightning.pytorch.loops"))
            if is_lightnings and hasattr(value, "__dict__") and id(value) not in seen:
                seen.add(id(value))
                found.append(value)


def _reachable(roots: Iterable[object]) -> Iterator[object]:
    """Yields objects and all objects that are reachable by attributes and items of short containers."""
    found = [*roots]
    seen: dict[int, object] = {}  # keeps the objects alive, as the `id` of a deleted one may be reused
    while found:
        value = found.pop()
        if id(value) in seen or isinstance(value, _OPAQUE):
            continue
        seen[id(value)] = value
        yield value
        if isinstance(value, (*_CONTAINERS, tuple)) and len(value) <= _MAX_ITEMS:
            found += value.values() if isinstance(value, dict) else value
        found += getattr(value, "__dict__", {}).values()


def _snapshot(value: object) -> Iterator[_Restore]:
    """Yields functions that restore the present state of an object."""
    generator = _snapshot_generator(value)
    if generator is not None:
        yield generator
    elif isinstance(value, Optimizer):
        yield _snapshot_state_dict(value)
    elif isinstance(value, nn.Module):
        yield _snapshot_attributes(value)
        for attribute in [*vars(value).values()]:
            items = attribute.values() if isinstance(attribute, dict) else [attribute]
            yield from (_snapshot_tensor(item) for item in items if isinstance(item, Tensor))
    elif isinstance(value, (Dataset, L.LightningDataModule, L.Callback)) or _is_iterable(value):
        yield _snapshot_attributes(value)
        if callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None)):
            yield _snapshot_state_dict(value)
        if isinstance(value, DataLoader):
            value._iterator = None
    elif isinstance(value, _CONTAINERS):
        yield _snapshot_container(value)
    elif hasattr(value, "__dict__"):
        yield _snapshot_attributes(value)


def _snapshot_state_dict(value: Any) -> _Restore:
    state = deepcopy(value.state_dict())
    return lambda: value.load_state_dict(state)


def _is_iterable(value: object) -> bool:
    return hasattr(value, "__dict__") and hasattr(type(value), "__iter__")


def _snapshot_attributes(value: object) -> _Restore:
    attributes = vars(value)
    saved = dict(attributes)
    containers = [_snapshot_container(container) for container in saved.values() if isinstance(container, _CONTAINERS)]

    def restore() -> None:
        attributes.clear()
        attributes.update(saved)
        for restore_container in containers:
            restore_container()

    return restore


def _snapshot_container(container: Any) -> _Restore:
    """Copies a container's items; they are put back only if they changed, as the container may be read-only."""
    content = dict(container) if isinstance(container, dict) else [*container]

    def restore() -> None:
        if _identities(container) != _identities(content):
            container.clear()
            (container.extend if isinstance(container, (list, deque)) else container.update)(content)

    return restore


def _identities(container: Any) -> list[int]:
    values = container.values() if isinstance(container, dict) else ()
    return [id(item) for items in (container, values) for item in items]


def _snapshot_tensor(tensor: Tensor) -> _Restore:
    """Copies a tensor's values; restores them in the same memory, which other tensors may share."""
    data, values, is_leaf = tensor.data, tensor.data.clone(), tensor.is_leaf
    grad, requires_grad = (tensor.grad, tensor.requires_grad) if is_leaf else (None, True)

    def restore() -> None:
        data.copy_(values)
        tensor.data = data
        if is_leaf:
            tensor.grad = grad
            tensor.requires_grad_(requires_grad)

    return restore


def _snapshot_generator(value: object) -> _Restore | None:
    if isinstance(value, torch.Generator):
        state = value.get_state()
        return lambda: value.set_state(state)
    if isinstance(value, np.random.Generator):
        bits, saved = value.bit_generator, value.bit_generator.state
        return lambda: setattr(bits, "state", saved)
    if isinstance(value, np.random.RandomState):
        numpy = value.get_state()
        return lambda: value.set_state(numpy)
    if isinstance(value, random.Random):
        python = value.getstate()
        return lambda: value.setstate(python)
    return None
