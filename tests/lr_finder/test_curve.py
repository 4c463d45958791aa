import math
import random
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lightning_heads.lr_finder.curve import LRCurve, smooth

SUGGESTIONS = ("valley", "slide", "minimum", "steep")


def exponential_lrs(num_steps: int = 100) -> list[float]:
    return [1e-7 * 1e8 ** (i / num_steps) for i in range(num_steps)]


def fall(i: int) -> float:
    return 3 - 2 / (1 + math.exp(-(i - 55) / 6)) + math.exp((i - 88) / 3)


def noisy(seed: int) -> Callable[[int], float]:
    draw = random.Random(seed)
    return lambda i: fall(i) + draw.gauss(0, 0.05)


CURVES: dict[str, Callable[[int], float]] = {
    "smooth": fall,
    "noisy": noisy(0),
    "more noisy": noisy(1),
    "two valleys": lambda i: fall(i) + math.sin(i / 6) / 4,
    "never rises": lambda i: 5 - (i / 40) ** 1.5,
    "late": lambda i: 1 - 1 / (1 + math.exp(-(i - 80) / 2)),
    "below zero": lambda i: fall(i) - 10,
    "rises first": lambda i: fall(i) + (1 if 5 < i < 20 else 0),
}


@pytest.mark.parametrize("suggestion", SUGGESTIONS)
@pytest.mark.parametrize("count", [20, 85])
@pytest.mark.parametrize("name", CURVES)
def test_suggestions_equal_fastais(name: str, count: int, suggestion: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fastai.callback import schedule
    indices = [int(i * 100 / count) for i in range(count)]
    lrs, losses = [exponential_lrs()[i] for i in indices], [CURVES[name](i) for i in indices]
    expected, _ = getattr(schedule, suggestion)(torch.tensor(lrs), torch.tensor(losses), 100)
    assert getattr(LRCurve(lrs, losses), suggestion) == pytest.approx(expected, rel=1e-6)


def test_suggests_the_valley() -> None:
    curve = LRCurve(exponential_lrs(), [fall(i) for i in range(100)])
    assert curve.suggestion == curve.valley == curve.suggestions()["valley"]
    assert [*curve.suggestions()] == [*SUGGESTIONS]
    assert 1e-4 < curve.suggestion < curve.minimum * 10


def test_smooths_as_fastai_does() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fastai.learner import AvgSmoothLoss
    average = AvgSmoothLoss()
    expected = []
    for i in range(100):
        average.accumulate(type("Learner", (), {"loss": torch.tensor(fall(i))}))
        expected.append(float(average.value))
    assert smooth([fall(i) for i in range(100)]) == pytest.approx(expected, rel=1e-5)


def test_first_and_last_points_are_dropped() -> None:
    curve = LRCurve.from_run(exponential_lrs(), [fall(i) for i in range(100)], 100)
    assert curve.lrs == exponential_lrs()[10:-5]
    assert curve.losses == smooth([fall(i) for i in range(100)])[10:-5]
    assert curve.raw_losses == [fall(i) for i in range(10, 95)]


def test_a_run_that_ends_in_nan_keeps_the_losses_before_it() -> None:
    losses = [fall(i) for i in range(80)]
    assert LRCurve.from_run(exponential_lrs()[:81], [*losses, math.nan], 100).raw_losses == losses[10:]
    losses = [fall(i) for i in range(98)]
    assert LRCurve.from_run(exponential_lrs()[:99], [*losses, math.nan], 100).raw_losses == losses[10:95]


def test_a_short_run_keeps_all_points() -> None:
    assert len(LRCurve.from_run(exponential_lrs()[:30], [fall(i) for i in range(30)], 100).losses) == 30
    assert len(LRCurve.from_run(exponential_lrs()[:30], [*map(fall, range(29)), math.inf], 100).losses) == 29


@pytest.mark.parametrize("suggestion", SUGGESTIONS)
def test_few_points_are_refused(suggestion: str) -> None:
    with pytest.raises(ValueError, match="at least 16 losses to suggest a learning rate, but got 15"):
        getattr(LRCurve(exponential_lrs()[:15], [fall(i) for i in range(40, 55)]), suggestion)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [0.0, 1e-5, 0.1, 1.0])
def test_noise_is_refused(seed: int, scale: float) -> None:
    draw = random.Random(seed)
    curve = LRCurve.from_run(exponential_lrs(), [2 + draw.gauss(0, scale) for _ in range(100)], 100)
    with pytest.raises(ValueError, match="Expected the loss to fall"):
        _ = curve.suggestion


def test_a_loss_that_only_rises_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected the loss to fall"):
        LRCurve(exponential_lrs(), [1 + i / 100 for i in range(100)]).suggestions()


@pytest.mark.parametrize("seed", range(5))
def test_a_falling_loss_is_recognized_in_strong_noise(seed: int) -> None:
    draw = random.Random(seed)
    losses = [fall(i) * (1 + draw.gauss(0, 0.3)) for i in range(100)]
    assert 1e-6 < LRCurve.from_run(exponential_lrs(), losses, 100).suggestion < 1


def test_plots_the_curve_with_its_suggestions(tmp_path: Path) -> None:
    curve = LRCurve(exponential_lrs(), [fall(i) for i in range(100)])
    (axes,) = curve.plot(tmp_path / "curve.png").axes
    assert axes.get_xscale() == "log"
    drawn = {line.get_label().split()[0]: float(line.get_xdata()[0]) for line in axes.lines[1:]}
    assert drawn == pytest.approx(curve.suggestions())
    assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"


def test_plots_a_curve_without_suggestions(tmp_path: Path) -> None:
    (axes,) = LRCurve(exponential_lrs(), [1.0] * 100).plot().axes
    assert len(axes.lines) == 1


def test_plotting_without_matplotlib_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"lightning-heads\[plots\]"):
        LRCurve(exponential_lrs(), [1.0] * 100).plot()
