"""Parameter groups: which parameters train together, at which learning rate, and which of them decay."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import nn

LearningRate = float | Sequence[float]


@runtime_checkable
class Grouped(Protocol):
    """A model that says how its parameters are grouped: input side first, head last, disjoint and complete."""

    def param_groups(self) -> list[list[nn.Parameter]]:
        """Returns the groups."""
        ...


def param_groups(model: nn.Module) -> list[list[nn.Parameter]]:
    """Returns a model's parameter groups, checked: the model's own `param_groups()`, or else one group of everything.

    Raises:
        ValueError: If a parameter is in no group, in several, or not the model's.
    """
    groups = model.param_groups() if isinstance(model, Grouped) else [[*model.parameters()]]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    seen: dict[int, int] = {}
    for index, group in enumerate(groups):
        for parameter in group:
            if id(parameter) not in names:
                raise ValueError(f"Expected group {index} to hold parameters of the model, but one is not the model's")
            if id(parameter) in seen:
                name = names[id(parameter)]
                raise ValueError(
                    f"Expected {name} in one parameter group, but it is in {seen[id(parameter)]} and {index}"
                )
            seen[id(parameter)] = index
    if missing := [name for key, name in names.items() if key not in seen]:
        raise ValueError(
            f"Expected every parameter in a group, but {len(missing)} are in none: {', '.join(missing[:3])}"
        )
    return groups


def slice_lr(lr: LearningRate, num_groups: int) -> list[float]:
    """Returns one learning rate a group.

    A number serves every group; a pair goes geometrically from the first group to the last (fastai's `slice(a, b)`);
    a longer sequence has one number a group.

    Raises:
        ValueError: If the numbers are not positive or neither two nor one a group.

    >>> [round(value, 6) for value in slice_lr((1e-5, 1e-3), 3)]
    [1e-05, 0.0001, 0.001]
    """
    if not isinstance(lr, (int, float, Sequence)):
        raise TypeError(f"Expected `lr` to be a number, a pair or one number a group, but got {lr!r}")
    rates = [float(value) for value in lr] if isinstance(lr, Sequence) else [float(lr)] * num_groups
    if not rates or min(rates) <= 0:
        raise ValueError(f"Expected `lr` to be positive, but got {lr}")
    if len(rates) == num_groups:
        return rates
    if len(rates) != 2:
        raise ValueError(f"Expected `lr` to be a number, a pair or {num_groups} numbers, one a group, but got {lr}")
    low, high = rates
    if num_groups == 1:
        return [high]
    return [low * (high / low) ** (i / (num_groups - 1)) for i in range(num_groups)]


def optimizer_groups(model: nn.Module, lr: LearningRate) -> list[dict[str, Any]]:
    """Returns the groups an optimiser takes: each of the model's, split into what decays and what does not.

    Biases and parameters of normalisation layers do not decay, nor other vectors and scalars such as LayerScale, nor
    what the model names in `no_weight_decay()`. A group has a `name`, its `lr` and that same number as `initial_lr`,
    which schedules scale.
    """
    groups = param_groups(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    undecayed = _undecayed(model)
    result = []
    for index, (parameters, rate) in enumerate(zip(groups, slice_lr(lr, len(groups)), strict=True)):
        for kind, decays in (("decay", True), ("no_decay", False)):
            chosen = [p for p in parameters if (id(p) not in undecayed) == decays]
            if not chosen:
                continue
            group: dict[str, Any] = {"params": chosen, "lr": rate, "initial_lr": rate, "name": f"{index}/{kind}"}
            if not decays:
                group["weight_decay"] = 0.0
            group["param_names"] = [names[id(p)] for p in chosen]
            result.append(group)
    return result


def _undecayed(model: nn.Module) -> set[int]:
    keys = {id(p) for p in model.parameters() if p.ndim <= 1}
    for module in model.modules():
        if "norm" in type(module).__name__.lower():
            keys |= {id(p) for p in module.parameters(recurse=False)}
        name_undecayed = getattr(module, "no_weight_decay", None)
        listed: Iterable[str] = name_undecayed() if callable(name_undecayed) else ()
        own = dict(module.named_parameters())
        keys |= {id(own[name]) for name in listed if name in own}
    return keys
