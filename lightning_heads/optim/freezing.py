"""Freezing and unfreezing of parameter groups, and the mode of the frozen modules."""

from collections.abc import Iterable, Iterator
from typing import Literal, get_args

from torch import nn

from .param_groups import Splitter, is_norm, param_groups

NormPolicy = Literal["train", "stats", "eval"]

# Attributes of a module: its own parameters that were frozen here rather than by the user, and whether it was put in
# evaluation mode here. As attributes they survive copying.
_FROZEN = "_frozen_parameters"
_EVALUATED = "_evaluated_while_frozen"
FREEZE_MARKERS = {_FROZEN, _EVALUATED}


def freeze_to(model: nn.Module, n: int, *, norm: NormPolicy = "train", splitter: Splitter | None = None) -> None:
    """Freezes the parameter groups before the n-th and trains the others; fastai's `freeze_to`.

    A frozen parameter does not require a gradient and has none. What the user froze by `requires_grad_(False)` stays
    frozen in any group.

    Args:
        model: A model with `param_groups()`.
        n: First group that trains; negative numbers count from the end, so -1 trains the head alone.
        norm: Treatment of normalization layers in frozen groups: `train` keeps training them (fastai's default),
            `stats` freezes their parameters but updates their running statistics, `eval` also puts the frozen modules
            in evaluation mode, dropout included, so that their features are deterministic and need no backward pass.
        splitter: Maps the model to its groups; see `param_groups`.

    Raises:
        ValueError: If `n` is out of range, or is not 0 for a model of one group, or `norm` is unknown.
    """
    groups = param_groups(model, splitter)
    first = first_group(n, len(groups))
    freeze_parameters(model, [p for group in groups[:first] for p in group], norm)


def freeze(model: nn.Module, *, norm: NormPolicy = "train", splitter: Splitter | None = None) -> None:
    """Freezes all parameter groups but the last, the head; see `freeze_to`."""
    freeze_to(model, -1, norm=norm, splitter=splitter)


def unfreeze(model: nn.Module, *, splitter: Splitter | None = None) -> None:
    """Unfreezes all parameter groups; see `freeze_to`."""
    freeze_to(model, 0, splitter=splitter)


def first_group(n: int, num_groups: int, argument: str = "n") -> int:
    """Returns the index, from 0, of the first group that trains, where `n` may count from the end.

    Raises:
        ValueError: If `n` is out of range, or is not 0 for a model of one group; the text names it `argument`.

    >>> first_group(-1, 3)
    2
    """
    if n and num_groups == 1:
        raise ValueError(
            f"Expected several parameter groups to freeze some (`{argument}` {n}), but there is one; give the model "
            "`param_groups()`, or pass a `splitter` to the task, `optimizer_groups` or `freeze_to`"
        )
    if not -num_groups <= n < num_groups:
        raise ValueError(
            f"Expected `{argument}` between {-num_groups} and {num_groups - 1}, as there are {num_groups} parameter "
            f"groups, but got {n}"
        )
    return n % num_groups


def check_norm(norm: str) -> None:
    """Raises ValueError unless `norm` is a `NormPolicy`."""
    if norm not in get_args(NormPolicy):
        raise ValueError(f"Expected `norm` to be {', '.join(get_args(NormPolicy))}, but got {norm!r}")


def user_trainable(model: nn.Module) -> set[int]:
    """Returns the `id` of each parameter that the user did not freeze, whether `freeze_parameters` froze it or not."""
    return {
        id(parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad or name in getattr(module, _FROZEN, ())
    }


def freeze_parameters(model: nn.Module, parameters: Iterable[nn.Parameter], norm: NormPolicy) -> list[nn.Module]:
    """Freezes the given parameters and unfreezes all others that an earlier call froze.

    Returns the modules that are in evaluation mode while frozen.

    Args:
        model: The module that has the parameters.
        parameters: Parameters to freeze.
        norm: See `freeze_to`.
    """
    check_norm(norm)
    frozen = {id(p) for p in parameters}
    evaluated = {id(m) for m in _frozen_modules(model, frozen, False)} if norm == "eval" and frozen else set()
    for module in model.modules():
        _freeze_own_parameters(module, set() if norm == "train" and is_norm(module) else frozen)
        if id(module) in evaluated:
            if module.training:
                setattr(module, _EVALUATED, True)
                module.training = False
        elif module.__dict__.pop(_EVALUATED, False):
            module.training = True
    return [m for m in model.modules() if id(m) in evaluated]


def _freeze_own_parameters(module: nn.Module, frozen: set[int]) -> None:
    """Freezes those of a module's own parameters, not its children's, that are in `frozen`, and records their names."""
    before: frozenset[str] = getattr(module, _FROZEN, frozenset())
    now: set[str] = set()
    for name, parameter in module.named_parameters(recurse=False):
        if id(parameter) in frozen:
            if parameter.requires_grad or name in before:
                now.add(name)
            parameter.requires_grad_(False)
            parameter.grad = None
        elif name in before:
            parameter.requires_grad_(True)
    if now or before:
        setattr(module, _FROZEN, frozenset(now))


def _frozen_modules(module: nn.Module, frozen: set[int], default: bool) -> Iterator[nn.Module]:
    """Yields the modules whose parameters are all frozen.

    A module without parameters, such as dropout, counts as frozen if `default` is true; for a child, that is whether
    its nearest siblings with parameters are frozen.
    """
    if _is_frozen(module, frozen, default):
        yield from module.modules()
        return
    children = [*module.children()]
    for i, child in enumerate(children):
        before = next((other for other in reversed(children[:i]) if [*other.parameters()]), None)
        after = next((other for other in children[i + 1 :] if [*other.parameters()]), None)
        neighbors = [_is_frozen(other, frozen, False) for other in (before, after) if other is not None]
        yield from _frozen_modules(child, frozen, bool(neighbors) and all(neighbors))


def _is_frozen(module: nn.Module, frozen: set[int], default: bool) -> bool:
    ids = [id(p) for p in module.parameters()]
    return all(i in frozen for i in ids) if ids else default
