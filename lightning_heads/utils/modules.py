"""Modes of modules, and modules that are compiled."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

from torch import nn

T = TypeVar("T")


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Puts a model in evaluation mode within the block, then restores the mode of each of its modules."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        model.train()  # some models free here what they cached in evaluation mode
        for module, training in modes:
            module.training = training


def uncompiled(module: T) -> T:
    """Returns the module that a result of `torch.compile` wraps, whose class and children it hides; others unchanged.

    It has the same parameters, and runs without compilation.
    """
    return cast(T, getattr(module, "_orig_mod", module))


def uncompiled_name(name: str) -> str:
    """Returns the name of a parameter or buffer in a module, without what compiled modules within it add to it.

    >>> uncompiled_name("model._orig_mod.head.weight")
    'model.head.weight'
    """
    return name.replace("_orig_mod.", "")
