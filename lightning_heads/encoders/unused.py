"""Parameters that outputs do not depend on: without a gradient they break DDP, so they are dropped."""

from collections.abc import Iterable

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


def drop_parameters(model: nn.Module, names: Iterable[str]) -> None:
    """Sets parameters to None, in place."""
    for name in names:
        owner, _, leaf = name.rpartition(".")
        model.get_submodule(owner).register_parameter(leaf, None)
