"""Shapes of learning rate and momentum over a phase of training, as pure functions of the position in it."""

import math
from collections.abc import Callable
from dataclasses import dataclass


class Shape:
    """Shape of learning rates and momentum over a phase of training. Subclass it for a shape of your own."""

    def factor(self, position: float) -> float:
        """Maps a position in 0..1 to what the learning rates are multiplied by."""
        raise NotImplementedError

    def momentum(self, position: float) -> float | None:
        """Maps a position in 0..1 to the momentum (the first beta of Adam), or to None to leave it alone."""
        return None


@dataclass(frozen=True)
class Cycle(Shape):
    """Warms up and anneals by cosines, momentum the other way (Smith 2018): fastai's `fit_one_cycle`.

    Args:
        pct_start: Fraction of the steps that warm up.
        div: Peak over the first learning rate.
        div_final: Peak over the last learning rate.
        moms: Momentum at the start, the peak and the end, or None to leave it alone.
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
    """Stays flat, then anneals by a cosine: fastai's `fit_flat_cos`.

    Args:
        pct_start: Fraction of the steps that stay flat.
        div_final: Peak over the last learning rate.
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
    """Anneals to 0 by a cosine, again and again (SGDR, Loshchilov 2016): fastai's `fit_sgdr`.

    Args:
        cycles: How often.
        mult: Length of each cycle over that of the one before.
    """

    cycles: int = 1
    mult: float = 2.0

    def __post_init__(self) -> None:
        _check_positive(cycles=self.cycles, mult=self.mult)

    def factor(self, position: float) -> float:
        lengths = [self.mult**i for i in range(self.cycles)]
        # a restart that falls on a step must not be missed by rounding
        place, cycle = position * sum(lengths) + 1e-6, 0
        while cycle < self.cycles - 1 and place >= lengths[cycle]:
            place -= lengths[cycle]
            cycle += 1
        return _cosine(1.0, 0.0, min(max(place - 1e-6, 0.0) / lengths[cycle], 1.0))


@dataclass(frozen=True)
class Custom(Shape):
    """Follows a function from the position in 0..1 to a factor."""

    function: Callable[[float], float]

    def factor(self, position: float) -> float:
        return float(self.function(position))


@dataclass(frozen=True)
class Constant(Shape):
    """Leaves learning rates as they are."""

    def factor(self, position: float) -> float:
        return 1.0


def anneal(position: float, pct_start: float, start: float, middle: float, end: float) -> float:
    """Goes from start to middle by a cosine over the first `pct_start` of 0..1, then to end by another.

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
