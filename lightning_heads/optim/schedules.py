"""Schedules of learning rates and momentum over a training phase, as pure functions of the position in it."""

import math
from collections.abc import Callable
from dataclasses import dataclass


class Shape:
    """Base class of schedules over a training phase. A subclass of your own implements `factor`."""

    def factor(self, position: float) -> float:
        """Returns the factor that multiplies the learning rates at a position in 0..1 of the phase."""
        raise NotImplementedError

    def momentum(self, position: float) -> float | None:
        """Returns the momentum (the first beta of Adam) at a position in 0..1, or None to leave it unchanged."""
        return None


@dataclass(frozen=True)
class Cycle(Shape):
    """One-cycle schedule of cosine warmup and annealing, inverse for momentum (Smith 2018): fastai's `fit_one_cycle`.

    Args:
        pct_start: Fraction of the steps that warm up.
        div: Peak learning rate divided by the first one.
        div_final: Peak learning rate divided by the last one.
        moms: Momentum at the start, at the peak of the learning rate and at the end, or None to leave it unchanged.
    """

    pct_start: float = 0.25
    div: float = 25.0
    div_final: float = 1e5
    moms: tuple[float, float, float] | None = (0.95, 0.85, 0.95)

    def __post_init__(self) -> None:
        _check_fraction(self.pct_start)
        _check_positive(div=self.div, div_final=self.div_final)

    def factor(self, position: float) -> float:
        return anneal(position, self.pct_start, 1 / self.div, 1.0, 1 / self.div_final)

    def momentum(self, position: float) -> float | None:
        return None if self.moms is None else anneal(position, self.pct_start, *self.moms)


@dataclass(frozen=True)
class FlatCosine(Shape):
    """Constant learning rates, then cosine annealing: fastai's `fit_flat_cos`.

    Args:
        pct_start: Fraction of the steps with constant learning rates.
        div_final: First learning rate divided by the last one.
    """

    pct_start: float = 0.75
    div_final: float = 1e5

    def __post_init__(self) -> None:
        _check_fraction(self.pct_start)
        _check_positive(div_final=self.div_final)

    def factor(self, position: float) -> float:
        return anneal(position, self.pct_start, 1.0, 1.0, 1 / self.div_final)


@dataclass(frozen=True)
class Restarts(Shape):
    """Cosine annealing to 0 with warm restarts (SGDR, Loshchilov 2016): fastai's `fit_sgdr`.

    Args:
        cycles: Number of cycles.
        mult: Length of each cycle divided by that of the one before.
    """

    cycles: int = 1
    mult: float = 2.0

    def __post_init__(self) -> None:
        _check_positive(cycles=self.cycles, mult=self.mult)

    def factor(self, position: float) -> float:
        lengths = [self.mult**i for i in range(self.cycles)]
        # the margin keeps rounding from missing a restart that falls exactly on a step
        offset, cycle = position * sum(lengths) + 1e-6, 0
        while cycle < self.cycles - 1 and offset >= lengths[cycle]:
            offset -= lengths[cycle]
            cycle += 1
        return _cosine(1.0, 0.0, min(max(offset - 1e-6, 0.0) / lengths[cycle], 1.0))


@dataclass(frozen=True)
class Custom(Shape):
    """Schedule whose factor is a function of the position in 0..1."""

    function: Callable[[float], float]

    def factor(self, position: float) -> float:
        return float(self.function(position))


@dataclass(frozen=True)
class Constant(Shape):
    """Leaves the learning rates unchanged."""

    def factor(self, position: float) -> float:
        return 1.0


def anneal(position: float, pct_start: float, start: float, middle: float, end: float) -> float:
    """Anneals by a cosine from `start` to `middle` over the first `pct_start` of 0..1, then from `middle` to `end`.

    >>> [round(anneal(p, 0.25, 0.0, 1.0, 0.0), 2) for p in (0, 0.125, 0.25, 0.625, 1)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if position < pct_start:
        return _cosine(start, middle, position / pct_start)
    return _cosine(middle, end, (position - pct_start) / (1 - pct_start))


def _cosine(start: float, end: float, position: float) -> float:
    return start + (1 + math.cos(math.pi * (1 - position))) * (end - start) / 2


def _check_fraction(pct_start: float) -> None:
    if not 0 < pct_start < 1:
        raise ValueError(f"Expected `pct_start` in (0, 1), but got {pct_start}")


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"Expected `{name}` to be positive, but got {value}")
