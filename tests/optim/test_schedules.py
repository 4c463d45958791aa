"""Schedules as functions of the position, against fastai's; tests/callbacks/phases compares them step for step."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest

from lightning_heads.optim import Constant, Cycle, FlatCosine, Restarts, Shape
from lightning_heads.optim.schedules import Custom, anneal

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fastai.callback.schedule import SchedCos, combine_scheds, combined_cos

POSITIONS = np.linspace(0, 1, 41)


def _assert_equal(ours: Callable[[float], float | None], theirs: Callable[[float], float]) -> None:
    expected = [theirs(float(position)) for position in POSITIONS]
    np.testing.assert_allclose([ours(float(position)) for position in POSITIONS], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("start", "middle", "end"), [(0.04, 1.0, 1e-5), (0.95, 0.85, 0.95), (1.0, 1.0, 0.0)])
@pytest.mark.parametrize("pct_start", [0.25, 0.3, 0.99])
def test_anneal_equals_fastais_combined_cos(pct_start: float, start: float, middle: float, end: float) -> None:
    _assert_equal(
        lambda position: anneal(position, pct_start, start, middle, end), combined_cos(pct_start, start, middle, end)
    )


@pytest.mark.parametrize(("pct_start", "div", "div_final"), [(0.25, 25.0, 1e5), (0.3, 5.0, 100.0)])
def test_cycle_equals_fastais(pct_start: float, div: float, div_final: float) -> None:
    cycle = Cycle(pct_start, div, div_final, moms=(0.9, 0.8, 0.7))
    _assert_equal(cycle.factor, combined_cos(pct_start, 1 / div, 1.0, 1 / div_final))
    _assert_equal(cycle.momentum, combined_cos(pct_start, 0.9, 0.8, 0.7))


@pytest.mark.parametrize(("pct_start", "div_final"), [(0.75, 1e5), (0.5, 10.0)])
def test_flat_cosine_equals_fastais(pct_start: float, div_final: float) -> None:
    _assert_equal(FlatCosine(pct_start, div_final).factor, combined_cos(pct_start, 1.0, 1.0, 1 / div_final))


@pytest.mark.parametrize(("cycles", "mult"), [(1, 2.0), (2, 1.0), (2, 3.0)])
def test_restarts_equal_fastais(cycles: int, mult: float) -> None:
    lengths = [mult**i for i in range(cycles)]
    fractions = [length / sum(lengths) for length in lengths]  # of 1, 0.5 and 0.25, exact in single precision
    _assert_equal(Restarts(cycles, mult).factor, combine_scheds(fractions, [SchedCos(1.0, 0.0)] * cycles))


def test_constant_and_custom_factors() -> None:
    assert {Constant().factor(position) for position in POSITIONS} == {1.0}
    assert Custom(lambda position: 1 - position).factor(0.25) == 0.75


@pytest.mark.parametrize("shape", [Cycle(moms=None), FlatCosine(), Restarts(2), Constant(), Custom(float)])
def test_momentum_is_left_unchanged_by_others_than_a_cycle_with_momenta(shape: Shape) -> None:
    assert shape.momentum(0.5) is None


def test_the_base_class_has_no_factor() -> None:
    with pytest.raises(NotImplementedError):
        Shape().factor(0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cycle(pct_start=0), r"`pct_start` in \(0, 1\), but got 0"),
        (lambda: Cycle(div_final=-1), "`div_final` to be positive, but got -1"),
        (lambda: FlatCosine(pct_start=1.0), r"`pct_start` in \(0, 1\), but got 1.0"),
        (lambda: FlatCosine(div_final=0), "`div_final` to be positive, but got 0"),
        (lambda: Restarts(0), "`cycles` to be positive, but got 0"),
        (lambda: Restarts(2, mult=0), "`mult` to be positive, but got 0"),
    ],
)
def test_wrong_settings_are_refused(make: Callable[[], Shape], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
