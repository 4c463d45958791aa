"""Finds and drops parameters that outputs do not depend on, as DDP fails on parameters without a gradient."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn


def unused_parameters(model: nn.Module, *outputs: Tensor) -> list[str]:
    """Returns the names of the trainable parameters that outputs do not depend on.

    The autograd graph is traversed without computing gradients.
    """
    nodes = [output.grad_fn for output in outputs if output.grad_fn is not None]
    seen, reached = {*nodes}, set()
    while nodes:
        node = nodes.pop()
        if hasattr(node, "variable"):
            reached.add(id(node.variable))
        new = {following for following, _ in node.next_functions if following is not None} - seen
        seen |= new
        nodes += new
    return [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in reached]


def drop_parameters(model: nn.Module, names: Iterable[str], running: Collection[str]) -> None:
    """Sets parameters to None in place; those of the modules `running` become non-persistent buffers instead."""
    for name in names:
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        if owner in running:
            kept = module.get_parameter(leaf).detach()
            delattr(module, leaf)
            module.register_buffer(leaf, kept, persistent=False)
        else:
            module.register_parameter(leaf, None)


@contextmanager
def recorded_calls(model: nn.Module) -> Iterator[list[str]]:
    """Records the names of the submodules that run, in order of their calls."""
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
