"""Phases of training, laid out over the steps of a run."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from ...optim.freezing import NormPolicy, check_norm, first_group
from ...optim.param_groups import LearningRate, slice_lr
from ...optim.schedules import Custom, Cycle, Shape


@dataclass(frozen=True)
class Phase:
    """A part of training in which the same parameter groups train. At most one phase of a run leaves its length out.

    Attributes:
        epochs: Length in epochs or fractions of one.
        steps: Length in optimizer steps, in place of `epochs`. With neither, what the other phases leave of the run.
        train_from: First parameter group that trains, fastai's `freeze_to`: 0 for all, -1 for the head alone.
        lr: Peak learning rates; see `slice_lr`. By default those of the optimizer's groups.
        shape: How learning rates and momentum go over the phase: `Cycle` (the default), `FlatCosine`, `Restarts`,
            `Constant`, one of your own, or a function from the position in 0..1 to a factor.
        norm: What normalization layers of the frozen groups do; see `freeze_to`.
    """

    epochs: float | None = None
    steps: int | None = None
    train_from: int = 0
    lr: float | list[float | None] | tuple[float | None, ...] | None = None
    shape: Shape | Callable[[float], float] | None = None
    norm: NormPolicy = "train"

    def __post_init__(self) -> None:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("Expected a phase to have `epochs` or `steps`, but got both")
        for name, value in (("epochs", self.epochs), ("steps", self.steps)):
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"Expected a phase's `{name}` to be positive, but got {value}")
        for name, number in (("steps", self.steps), ("train_from", self.train_from)):
            if number is not None and not isinstance(number, int):
                raise TypeError(f"Expected a phase's `{name}` to be an integer, but got {number!r}")
        check_norm(self.norm)


@dataclass(frozen=True)
class PlannedPhase:
    """A phase with its place in a run.

    Attributes:
        start: First step.
        stop: Step after the last.
        first: First parameter group that trains.
        norm: What normalization layers of the frozen groups do.
        rates: Peak learning rate of each group.
        shape: How learning rates and momentum go.
    """

    start: int
    stop: int
    first: int
    norm: NormPolicy
    rates: list[float]
    shape: Shape

    def at(self, step: int) -> tuple[list[float], float | None]:
        """Returns the learning rate of each group and the momentum of a step; after the last they stay."""
        position = min((step - self.start) / (self.stop - self.start), 1.0)
        factor = self.shape.factor(position)
        return [rate * factor for rate in self.rates], self.shape.momentum(position)

    def signature(self) -> list[float]:
        """Returns numbers that differ where two phases do anything else; functions are compared by their values."""
        curve = [(self.shape.factor(i / 16), self.shape.momentum(i / 16) or 0.0) for i in range(17)]
        policy = get_args(NormPolicy).index(self.norm)
        return [self.start, self.stop, self.first, policy, *self.rates, *(value for pair in curve for value in pair)]

    def __str__(self) -> str:
        rates = ", ".join(f"{rate:.3g}" for rate in self.rates)
        shape = type(self.shape).__name__
        trained = f"groups from {self.first} on" if self.first else "all groups"
        return f"steps {self.start} to {self.stop}, {trained}, norm {self.norm}, lr {rates}, {shape}"


def plan_phases(
    phases: Sequence[Phase], base_rates: LearningRate, num_groups: int, total: int, epoch: float, *, cut: bool = False
) -> list[PlannedPhase]:
    """Lays phases out over a run.

    Args:
        phases: The phases.
        base_rates: Learning rates of the phases that have none.
        num_groups: Number of parameter groups.
        total: Length of the run in optimizer steps.
        epoch: Length of an epoch in optimizer steps, or infinity where it is unknown.
        cut: Whether to cut phases that are longer than the run, as a trial of a few steps does.

    Raises:
        ValueError: If the phases do not fill the run, or one of them does not fit the groups.
    """
    lengths = [_length(phase, epoch) for phase in phases]
    known = sum(length for length in lengths if length is not None)
    free = sum(length is None for length in lengths)
    if free > 1:
        raise ValueError(f"Expected at most one phase without `epochs` or `steps`, but {free} have neither")
    bounds, place = [0], 0.0
    for length in lengths:
        place += total - known if length is None else length
        bounds.append(min(round(place), total) if cut else round(place))
    got = " + ".join("the rest" if length is None else f"{length:g}" for length in lengths)
    if not cut and (bounds[-1] != total or sorted(bounds) != bounds):
        advice = "raise `max_epochs` or `max_steps`" if free or known > total else "leave the length of one phase out"
        raise ValueError(
            f"Expected phases of {total} steps in all, as the run has ({_epochs(total, epoch)}), but got {got}; "
            f"{advice}"
        )
    if not cut and len(set(bounds)) < len(bounds):
        raise ValueError(
            f"Expected every phase to have a step, but of {total} ({_epochs(total, epoch)}) they take {got}; lengthen "
            "the one that has none, shorten the others, or raise `max_epochs` or `max_steps`"
        )
    return [
        PlannedPhase(
            start,
            stop,
            first_group(phase.train_from, num_groups, "train_from"),
            phase.norm,
            slice_lr(base_rates if phase.lr is None else phase.lr, num_groups),
            _as_shape(phase.shape),
        )
        for phase, start, stop in zip(phases, bounds, bounds[1:], strict=False)
        if stop > start
    ]


def end_early(phases: Sequence[PlannedPhase], index: int, step: int) -> list[PlannedPhase]:
    """Ends one phase at a step and moves those after it forward."""
    saved = phases[index].stop - step
    return [
        *phases[:index],
        replace(phases[index], stop=step),
        *(replace(s, start=s.start - saved, stop=s.stop - saved) for s in phases[index + 1 :]),
    ]


def _as_shape(shape: Shape | Callable[[float], float] | None) -> Shape:
    if shape is None:
        return Cycle()
    return shape if isinstance(shape, Shape) else Custom(shape)


def _length(phase: Phase, epoch: float) -> float | None:
    if phase.epochs is None:
        return phase.steps
    if not math.isfinite(epoch):
        raise ValueError(
            "Expected phases in `steps`, as the data do not say how long an epoch is, but got one of "
            f"{phase.epochs:g} epochs; `limit_train_batches` says it too"
        )
    return phase.epochs * epoch


def _epochs(total: int, epoch: float) -> str:
    return f"{total / epoch:g} epochs" if math.isfinite(epoch) else "an epoch has no length"
