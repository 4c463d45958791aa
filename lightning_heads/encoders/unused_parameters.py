"""Parameters that outputs do not depend on: without a gradient they break DDP, so they are dropped."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn


def unused_parameters(model: nn.Module, *outputs: Tensor) -> list[str]:
    """Names the trainable parameters that outputs do not depend on, by walking the graph back without computing."""
    nodes = [output.grad_fn for output in outputs if output.grad_fn is not None]
    seen, reached = {*nodes}, set()
    while nodes:
        node = nodes.pop()
        if hasattr(node, "variable"):
            reached.add(id(node.variable))
        fresh = {following for following, _ in node.next_functions if following is not None} - seen
        seen |= fresh
        nodes += fresh
    return [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in reached]


def drop_parameters(model: nn.Module, names: Iterable[str], running: Collection[str]) -> None:
    """Sets parameters to None, in place; those of modules that still run become buffers instead."""
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
