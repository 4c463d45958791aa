"""Phases of training and their assignment to the steps of a run."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from ...optim.freezing import NormPolicy, check_norm, first_group
from ...optim.param_groups import LearningRate, slice_lr
from ...optim.schedules import Custom, Cycle, Shape


@dataclass(frozen=True)
class Phase:
    """A part of training in which the same parameter groups train. At most one phase of a run may have no length.

    Attributes:
        epochs: Length in epochs or fractions of one.
        steps: Length in optimizer steps, in place of `epochs`. With neither, the phase takes the steps that the other
            phases leave.
        train_from: First parameter group that trains, fastai's `freeze_to`: 0 for all, -1 for the head alone.
        lr: Peak learning rates; see `slice_lr`. By default those of the optimizer's groups.
        shape: Shape of the learning rates and momentum over the phase: `Cycle` (the default), `FlatCosine`, `Restarts`,
            `Constant`, one of your own, or a function from the position in 0..1 to a factor of the learning rate.
        norm: What normalization layers of the frozen groups do: `train` trains them, `stats` only updates their
            running statistics, `eval` fixes both and disables dropout; see `freeze_to`.
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
    """A phase with its first and last steps in a run.

    Attributes:
        start: First step.
        stop: Step after the last one.
        first: First parameter group that trains.
        norm: What normalization layers of the frozen groups do.
        rates: Peak learning rate of each group.
        shape: Shape of the learning rates and momentum.
    """

    start: int
    stop: int
    first: int
    norm: NormPolicy
    rates: list[float]
    shape: Shape

    def at(self, step: int) -> tuple[list[float], float | None]:
        """Returns the learning rate of each group and the momentum at a step; both stay constant from `stop` on."""
        position = min((step - self.start) / (self.stop - self.start), 1.0)
        factor = self.shape.factor(position)
        return [rate * factor for rate in self.rates], self.shape.momentum(position)

    def signature(self) -> list[float]:
        """Returns numbers that are the same for equal phases; shapes are compared by their values at 17 positions."""
        curve = [(self.shape.factor(i / 16), self.shape.momentum(i / 16) or 0.0) for i in range(17)]
        policy = get_args(NormPolicy).index(self.norm)
        values = [self.start, self.stop, self.first, policy, *self.rates, *(value for pair in curve for value in pair)]
        return [float(value) for value in values]  # a shape may compute with NumPy, whose numbers no checkpoint loads

    def __str__(self) -> str:
        rates = ", ".join(f"{rate:.3g}" for rate in self.rates)
        shape = type(self.shape).__name__
        trained = f"groups from {self.first} on" if self.first else "all groups"
        return f"steps {self.start} to {self.stop}, {trained}, norm {self.norm}, lr {rates}, {shape}"


def plan_phases(
    phases: Sequence[Phase], base_rates: LearningRate, num_groups: int, total: int, epoch: float, *, cut: bool = False
) -> list[PlannedPhase]:
    """Assigns consecutive steps of a run to phases.

    Args:
        phases: The phases.
        base_rates: Learning rates of phases without `lr`.
        num_groups: Number of parameter groups.
        total: Length of the run in optimizer steps.
        epoch: Length of an epoch in optimizer steps, or infinity where it is unknown.
        cut: Whether to truncate phases that are longer than the run, for `fast_dev_run`.

    Raises:
        ValueError: If the phases do not fill the run, or one of them does not fit the groups.
    """
    lengths = [_length(phase, epoch) for phase in phases]
    known = sum(length for length in lengths if length is not None)
    num_open = sum(length is None for length in lengths)
    if num_open > 1:
        raise ValueError(f"Expected at most one phase without `epochs` or `steps`, but {num_open} have neither")
    bounds, position = [0], 0.0
    for length in lengths:
        position += total - known if length is None else length
        bounds.append(min(round(position), total) if cut else round(position))
    got = " + ".join("the rest" if length is None else f"{length:g}" for length in lengths)
    if not cut and (bounds[-1] != total or sorted(bounds) != bounds):
        too_long = num_open or known > total
        advice = "raise `max_epochs` or `max_steps`" if too_long else "leave the length of one phase out"
        raise ValueError(
            f"Expected phases of {total} steps in total, the length of the run ({_epochs(total, epoch)}), but got "
            f"{got}; {advice}"
        )
    if not cut and len(set(bounds)) < len(bounds):
        raise ValueError(
            f"Expected every phase to have a step, but a run of {total} ({_epochs(total, epoch)}) is divided into "
            f"{got}; lengthen the phase without a step, shorten the others, or raise `max_epochs` or `max_steps`"
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
    """Returns the phases with one of them ended at a step and the later ones moved forward accordingly."""
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
            "Expected phases in `steps`, as the length of an epoch is unknown, but got one of "
            f"{phase.epochs:g} epochs; `limit_train_batches` makes it known"
        )
    return phase.epochs * epoch


def _epochs(total: int, epoch: float) -> str:
    return f"{total / epoch:g} epochs" if math.isfinite(epoch) else "epochs of unknown length"
