"""Puts a trainer, a task and its data back to the bit after a trial run."""

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

_Undo = Callable[[], Any]

_CONTAINERS = (dict, list, set, deque)
_LONGEST = 100  # items of a container that is searched for generators: longer ones hold file names and samples
_OPAQUE = (type, ModuleType, L.Trainer, Tensor, _BaseDataLoaderIter)


@contextmanager
def preserved_state(trainer: L.Trainer, task: L.LightningModule, *others: object) -> Iterator[None]:
    """Puts everything back when left, also by an exception, so that a fit that follows is as if nothing had happened.

    - random state of Python, NumPy, torch and its CUDA device, and of generators found in the task and the others
    - parameters, buffers and other tensors of the task, what requires gradients, training modes, attributes, and
      optimizers that it keeps
    - attributes of the trainer, its strategy, precision, loops and connectors, with callbacks, loggers, progress,
      limits, metrics, optimizers and gradient scaler
    - attributes and states of the others: loaders, samplers, datasets, data modules and callbacks. A loader's workers
      that persist are left alone, others take their place meanwhile

    What lies deeper, such as arrays that a dataset changes in place, or files that are written, is not seen.

    Args:
        trainer: The trainer.
        task: The module that is fitted.
        others: What else takes part: data, callbacks.
    """
    with ExitStack() as undo:
        undo.callback(restore_random_state, random_state())
        for part in _trainer_parts(trainer):
            undo.callback(_attributes(part))
        for found in _reachable([task, *task.modules(), *others]):
            for restore in _state(found):
                undo.callback(restore)
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None:
            setattr(trainer.precision_plugin, "scaler", deepcopy(scaler))  # noqa: B010  # few plugins have one
        yield


def _trainer_parts(trainer: L.Trainer) -> Iterator[object]:
    """Gives the trainer, its strategy and precision, and what of Lightning's own it consists of: loops, connectors."""
    yield trainer.strategy
    yield trainer.precision_plugin
    seen, found = {id(trainer)}, [trainer]
    while found:
        part = found.pop()
        yield part
        for value in vars(part).values():
            room = type(value).__module__.startswith(("lightning.pytorch.trainer", "lightning.pytorch.loops"))
            if room and hasattr(value, "__dict__") and id(value) not in seen:
                seen.add(id(value))
                found.append(value)


def _reachable(roots: Iterable[object]) -> Iterator[object]:
    """Gives objects and what they hold in attributes and short containers."""
    found = [*roots]
    seen: dict[int, object] = {}  # keeps them too, as identities of the gone are given again
    while found:
        value = found.pop()
        if id(value) in seen or isinstance(value, _OPAQUE):
            continue
        seen[id(value)] = value
        yield value
        if isinstance(value, (*_CONTAINERS, tuple)) and len(value) <= _LONGEST:
            found += value.values() if isinstance(value, dict) else value
        found += getattr(value, "__dict__", {}).values()


def _state(value: object) -> Iterator[_Undo]:
    generator = _generator(value)
    if generator is not None:
        yield generator
    elif isinstance(value, Optimizer):
        yield _saved(value)
    elif isinstance(value, nn.Module):
        yield _attributes(value)
        for attribute in [*vars(value).values()]:
            items = attribute.values() if isinstance(attribute, dict) else [attribute]
            yield from (_tensor(item) for item in items if isinstance(item, Tensor))
    elif isinstance(value, (Dataset, L.LightningDataModule, L.Callback)) or _is_iterable(value):
        yield _attributes(value)
        if callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None)):
            yield _saved(value)
        if isinstance(value, DataLoader):
            value._iterator = None
    elif isinstance(value, _CONTAINERS):
        yield _container(value)
    elif hasattr(value, "__dict__"):
        yield _attributes(value)


def _saved(value: Any) -> _Undo:
    state = deepcopy(value.state_dict())
    return lambda: value.load_state_dict(state)


def _is_iterable(value: object) -> bool:
    return hasattr(value, "__dict__") and hasattr(type(value), "__iter__")


def _attributes(value: object) -> _Undo:
    attributes = vars(value)
    saved = dict(attributes)
    containers = [_container(held) for held in saved.values() if isinstance(held, _CONTAINERS)]

    def restore() -> None:
        attributes.clear()
        attributes.update(saved)
        for restore_container in containers:
            restore_container()

    return restore


def _container(held: Any) -> _Undo:
    """Keeps a container's items, and puts them back only where they changed: it may be a frozen one."""
    content = dict(held) if isinstance(held, dict) else [*held]

    def restore() -> None:
        if _identities(held) != _identities(content):
            held.clear()
            (held.extend if isinstance(held, (list, deque)) else held.update)(content)

    return restore


def _identities(held: Any) -> list[int]:
    values = held.values() if isinstance(held, dict) else ()
    return [id(item) for items in (held, values) for item in items]


def _tensor(tensor: Tensor) -> _Undo:
    """Keeps a tensor's place in memory as well, which others may share."""
    data, values, is_leaf = tensor.data, tensor.data.clone(), tensor.is_leaf
    grad, requires_grad = (tensor.grad, tensor.requires_grad) if is_leaf else (None, True)

    def restore() -> None:
        data.copy_(values)
        tensor.data = data
        if is_leaf:
            tensor.grad = grad
            tensor.requires_grad_(requires_grad)

    return restore


def _generator(value: object) -> _Undo | None:
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
