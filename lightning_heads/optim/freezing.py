"""Freezing: which parameter groups train, and what the frozen part does meanwhile."""

from collections.abc import Iterable, Iterator
from typing import Literal, get_args

from torch import nn

from .param_groups import Splitter, is_norm, param_groups

NormPolicy = Literal["train", "stats", "eval"]

# What was frozen here, and not by the user, is noted on the module that holds it: the note survives copying.
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
        norm: What normalization layers of the frozen part do: `train` goes on training them (fastai's default),
            `stats` updates only their running statistics, `eval` holds everything and switches dropout off too, so
            that the frozen part gives the same features for an image every time and costs a forward pass only.
        splitter: Maps the model to its groups; see `param_groups`.

    Raises:
        ValueError: If there is no such group, or nothing to freeze as there is one group only.
    """
    groups = param_groups(model, splitter)
    first = first_group(n, len(groups))
    freeze_parameters(model, [p for group in groups[:first] for p in group], norm)


def freeze(model: nn.Module, *, norm: NormPolicy = "train", splitter: Splitter | None = None) -> None:
    """Trains the last parameter group alone, the head; see `freeze_to`."""
    freeze_to(model, -1, norm=norm, splitter=splitter)


def unfreeze(model: nn.Module, *, splitter: Splitter | None = None) -> None:
    """Trains every parameter group; see `freeze_to`."""
    freeze_to(model, 0, splitter=splitter)


def first_group(n: int, num_groups: int, argument: str = "n") -> int:
    """Returns the index of the first group that trains, from one that may count from the end.

    Raises:
        ValueError: If there is no such group, or nothing to freeze as there is one group only.

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
    """Raises ValueError unless this is a policy for normalization layers."""
    if norm not in get_args(NormPolicy):
        raise ValueError(f"Expected `norm` to be {', '.join(get_args(NormPolicy))}, but got {norm!r}")


def user_trainable(model: nn.Module) -> set[int]:
    """Returns the identities of the parameters that the user did not freeze, whether they are frozen here or not."""
    return {
        id(parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad or name in getattr(module, _FROZEN, ())
    }


def freeze_parameters(model: nn.Module, parameters: Iterable[nn.Parameter], norm: NormPolicy) -> list[nn.Module]:
    """Freezes these parameters and unfreezes the others that an earlier call froze.

    Returns the modules that are in evaluation mode while frozen.

    Args:
        model: The module that holds the parameters.
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
    """Freezes the parameters that a module itself owns, and records their names on it."""
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
    """Gives the modules whose parameters are all frozen; one without any goes with its neighbors if they agree."""
    if _is_frozen(module, frozen, default):
        yield from module.modules()
        return
    children = [*module.children()]
    for i, child in enumerate(children):
        before = next((other for other in reversed(children[:i]) if [*other.parameters()]), None)
        after = next((other for other in children[i + 1 :] if [*other.parameters()]), None)
        around = [_is_frozen(other, frozen, False) for other in (before, after) if other is not None]
        yield from _frozen_modules(child, frozen, bool(around) and all(around))


def _is_frozen(module: nn.Module, frozen: set[int], default: bool) -> bool:
    ids = [id(p) for p in module.parameters()]
    return all(i in frozen for i in ids) if ids else default
