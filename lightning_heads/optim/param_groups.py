"""Parameter groups: which parameters train together, their learning rates and weight decay."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from ..utils.modules import uncompiled

LearningRate = float | Sequence[float | None]
Splitter = Callable[[nn.Module], list[list[nn.Parameter]]]


@runtime_checkable
class Grouped(Protocol):
    """Protocol of a model with parameter groups: ordered from the input to the head, disjoint and complete."""

    def param_groups(self) -> list[list[nn.Parameter]]:
        """Returns the groups."""
        ...


def param_groups(model: nn.Module, splitter: Splitter | None = None) -> list[list[nn.Parameter]]:
    """Returns and validates a model's parameter groups: the splitter's, else its own `param_groups()`, else one group.

    An `nn.Sequential` whose first module has `param_groups()`, such as an encoder, has those groups and one more of all
    modules that follow.

    Args:
        model: Any model.
        splitter: Maps the model to groups of its parameters, in place of the model's own; fastai's `splitter`.

    Raises:
        ValueError: If a trainable parameter is in no group, a parameter is in several groups or is not the model's, or
            one of several groups is empty.

    >>> class Pair(nn.Sequential):
    ...     pass
    >>> model = Pair(nn.Linear(2, 2), nn.Linear(2, 1))
    >>> [len(group) for group in param_groups(model, lambda m: [[*m[0].parameters()], [*m[1].parameters()]])]
    [2, 2]
    """
    model = uncompiled(model)
    groups = _own_groups(model) if splitter is None else [[*group] for group in splitter(model)]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    seen: dict[int, int] = {}
    for index, group in enumerate(groups):
        if not group and len(groups) > 1:
            raise ValueError(f"Expected every parameter group to have parameters, but group {index} has none")
        for parameter in group:
            if id(parameter) not in names:
                raise ValueError(f"Expected group {index} to hold parameters of the model, but one is not the model's")
            if id(parameter) in seen:
                name = names[id(parameter)]
                raise ValueError(
                    f"Expected {name} in one parameter group, but it is in {seen[id(parameter)]} and {index}"
                )
            seen[id(parameter)] = index
    missing = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in seen]
    if missing:
        raise ValueError(
            f"Expected every parameter in a group, but {len(missing)} are in none: {', '.join(missing[:3])}"
        )
    return groups


def _own_groups(model: nn.Module) -> list[list[nn.Parameter]]:
    if isinstance(model, Grouped):
        return model.param_groups()
    if isinstance(model, nn.Sequential) and len(model) > 1 and isinstance(model[0], Grouped):
        return [*model[0].param_groups(), [*model[1:].parameters()]]
    return [[*model.parameters()]]


def slice_lr(lr: LearningRate, num_groups: int) -> list[float]:
    """Returns the learning rate of each parameter group.

    A number applies to every group; a pair is spaced geometrically from the first group to the last (fastai's
    `slice(a, b)`); `(None, b)` gives b to the last group and a tenth of it to all others (fastai's `slice(b)`); a
    longer sequence has one number a group. A pair that gives the last group, the head, the lower rate warns.

    Raises:
        ValueError: If a number is not positive and finite, or a sequence has neither two entries nor one a group.
        TypeError: If `lr` is neither a number nor a sequence of numbers.

    >>> [round(value, 6) for value in slice_lr((1e-5, 1e-3), 3)]
    [1e-05, 0.0001, 0.001]
    >>> slice_lr((None, 0.1), 3)
    [0.01, 0.01, 0.1]
    """
    if not isinstance(lr, (int, float, Sequence)) or isinstance(lr, str):
        advice = "; write a slice as a pair" if isinstance(lr, slice) else ""
        raise TypeError(f"Expected `lr` to be a number, a pair or one number a group, but got {lr!r}{advice}")
    if isinstance(lr, Sequence) and len(lr) == 2 and lr[0] is None and lr[1] is not None:
        lr = [lr[1] / 10] * (num_groups - 1) + [lr[1]]
    values = [*lr] if isinstance(lr, Sequence) else [lr] * num_groups
    if not all(value is None or isinstance(value, (int, float)) for value in values):
        raise TypeError(f"Expected `lr` to have numbers, but got {lr!r}")
    rates = [float(value) for value in values if value is not None]
    if len(rates) < len(values):
        raise ValueError(f"Expected `lr` to have None only as the first of a pair, but got {lr}")
    if not rates or not min(rates) > 0 or max(rates) == float("inf"):
        raise ValueError(f"Expected `lr` to be positive, but got {lr}")
    if len(rates) == 2 and num_groups > 1 and rates[0] > rates[1]:
        warnings.warn(
            f"The head, the last parameter group, gets the lower learning rate of `lr` ({rates[0]:g}, {rates[1]:g}); "
            f"for the higher one, which is usual, write ({rates[1]:g}, {rates[0]:g})",
            stacklevel=1,  # one location, so that it is shown once for a rate that is passed on to phases
        )
    if len(rates) == num_groups:
        return rates
    if len(rates) != 2:
        raise ValueError(f"Expected `lr` to be a number, a pair or {num_groups} numbers, one a group, but got {lr}")
    low, high = rates
    if num_groups == 1:
        return [high]
    return [low * (high / low) ** (i / (num_groups - 1)) for i in range(num_groups)]


def optimizer_groups(
    model: nn.Module, lr: LearningRate = 1e-3, *, splitter: Splitter | None = None
) -> list[dict[str, Any]]:
    """Returns an optimizer's groups: each parameter group of the model, split into those with and without weight decay.

    Weight decay is 0 for biases, normalization layers, other vectors and scalars such as LayerScale, position
    embeddings, tokens, and parameters that a module names in `no_weight_decay()`. A group has a `name` ("0/decay"), its
    `lr`, the same number as `initial_lr`, which schedules scale, and `param_names`. Frozen parameters are included, so
    that unfreezing them adds no group.

    Args:
        model: Any model.
        lr: See `slice_lr`.
        splitter: See `param_groups`.
    """
    groups = param_groups(model, splitter)
    if len(groups) == 1 and isinstance(lr, Sequence) and len(lr) == 2:
        warnings.warn(
            f"The model has one parameter group, which gets the upper end of `lr` {lr}; a `splitter` makes several",
            stacklevel=2,
        )
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


def gather_groups(optimizer: Optimizer) -> list[list[dict[str, Any]]]:
    """Returns an optimizer's groups, collected by the model's parameter group that they belong to, in order.

    Those of `optimizer_groups` are matched by their names, such as "0/decay" and "0/no_decay"; any other is on its own.
    """
    gathered: dict[str, list[dict[str, Any]]] = {}
    for i, group in enumerate(optimizer.param_groups):
        index, separator, _ = str(group.get("name", "")).partition("/")
        gathered.setdefault(index if separator and index.isdigit() else f"{i} alone", []).append(group)
    return [*gathered.values()]


def group_parameters(groups: Iterable[list[dict[str, Any]]]) -> list[nn.Parameter]:
    """Returns the parameters of groups that `gather_groups` returned."""
    return [p for members in groups for group in members for p in group["params"]]


def base_rates(groups: Iterable[list[dict[str, Any]]]) -> list[float]:
    """Returns the initial learning rate, before any schedule, of each group that `gather_groups` returned."""
    return [float(members[0].get("initial_lr", members[0]["lr"])) for members in groups]


def set_lr(group: dict[str, Any], lr: float) -> None:
    """Sets the learning rate of an optimizer's group, in place if it is a tensor, as compiled optimizers need it."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(lr)
    else:
        group["lr"] = lr


def is_norm(module: nn.Module) -> bool:
    """Returns whether a module is a normalization layer, of torch, or of any library by its class name."""
    if isinstance(module, (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)):
        return True
    # a layer with a matrix does more than normalize, such as a linear layer that normalizes its weight
    return "norm" in type(module).__name__.lower() and all(p.ndim <= 1 for p in module.parameters(recurse=False))


def norm_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Returns the parameters of a model's normalization layers."""
    return [p for module in model.modules() if is_norm(module) for p in module.parameters(recurse=False)]


def _undecayed(model: nn.Module) -> set[int]:
    """Returns the `id` of each parameter without weight decay."""
    ids = {id(p) for p in model.parameters() if p.ndim <= 1}
    for module in model.modules():
        own = dict(module.named_parameters(recurse=False))
        if is_norm(module):
            ids |= {id(p) for p in own.values()}
        ids |= {id(p) for name, p in own.items() if _is_embedding(name) or _is_scale(name, p)}
        no_weight_decay = getattr(module, "no_weight_decay", None)
        listed: Iterable[str] = no_weight_decay() if callable(no_weight_decay) else ()
        named = dict(module.named_parameters()) if listed else {}
        ids |= {id(named[name]) for name in listed if name in named}
    return ids


def _is_embedding(name: str) -> bool:
    return any(part in name for part in ("pos_emb", "position_emb", "relative_position", "rel_pos", "token"))


def _is_scale(name: str, parameter: nn.Parameter) -> bool:
    """Returns whether a parameter is a scale by channel, of a shape such as `(c, 1, 1)`.

    One named `weight` is not, since a narrow layer's weight matrix may have that shape too.
    """
    return name != "weight" and parameter.shape[1:].numel() == 1
