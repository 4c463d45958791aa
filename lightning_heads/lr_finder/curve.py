"""Result of the learning rate finder: the loss over the learning rate, and the learning rates it suggests."""

import math
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from ..drawing.figure import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BETA = 0.98  # decay of fastai's AvgSmoothLoss
_NUM_DROPPED = 5  # last points, which fastai drops as the loss diverges there
_MIN_POINTS = 16  # `slide` compares slopes 15 points apart
_STANDARD_ERRORS = 3.0  # by which the loss must fall
_MIN_FALL = 1e-3  # by which the loss must fall, as a fraction of its value at the start


@dataclass(frozen=True)
class LRCurve:
    """Smoothed loss over learning rate, one point an optimizer step (Smith 2017), with fastai's four suggestions.

    Every suggestion raises a ValueError if the curve has fewer than 16 points or the loss does not fall. It falls if,
    of the raw losses up to the lowest smoothed loss, the mean of the last quarter is below the mean of the first
    quarter by more than 0.1 % and by more than three standard errors of the difference, which are estimated from the
    differences of successive losses.

    Attributes:
        lrs: Learning rates of the last parameter group.
        losses: Smoothed losses.
        raw_losses: Losses before smoothing; if empty, the noise is estimated from the smoothed losses.

    >>> curve = LRCurve([10.0**-k for k in range(20, 0, -1)], [*range(30, 11, -1), 60])
    >>> f"{curve.minimum:.0e}"
    '1e-03'
    """

    lrs: list[float]
    losses: list[float]
    raw_losses: list[float] = field(default_factory=list)

    @classmethod
    def from_run(cls, lrs: Sequence[float], losses: Sequence[float], num_steps: int) -> "LRCurve":
        """Smooths the losses of a run and drops the first tenth and the last five points, as fastai's `lr_find` does.

        If fewer than 16 points would remain, every point with a finite smoothed loss is kept.

        Args:
            lrs: Learning rates, one an optimizer step.
            losses: Raw losses, of which only the last may be non-finite.
            num_steps: Planned number of optimizer steps.
        """
        smoothed = smooth(losses)
        count = len(losses) if math.isfinite(smoothed[-1]) else len(losses) - 1
        first, stop = num_steps // 10, len(losses) - _NUM_DROPPED
        if math.isnan(smoothed[-1]):  # fastai does not stop at NaN, and drops the last points of all `num_steps`
            stop = min(count, num_steps - _NUM_DROPPED)
        if stop - first < _MIN_POINTS:
            first, stop = 0, count
        return cls([*lrs[first:stop]], smoothed[first:stop], [*losses[first:stop]])

    @property
    def suggestion(self) -> float:
        """The recommended learning rate: `valley`."""
        return self.valley

    @property
    def valley(self) -> float:
        """Learning rate half way down the longest decreasing subsequence of the losses: fastai's `valley`."""
        self._check()
        losses = array("f", self.losses)  # compared in single precision, as in fastai
        lengths: list[int] = []
        for i, loss in enumerate(losses):
            lengths.append(1 + max((lengths[j] for j in range(i) if losses[j] > loss), default=0))
        longest = max(lengths)
        return self.lrs[lengths.index(longest) - longest + longest // 3 + longest // 6]

    @property
    def slide(self) -> float:
        """Learning rate where, from the end back, slopes 15 points apart stop differing by 0.005: fastai's `slide`."""
        self._check()
        losses = self.losses
        inner = [(after - before) / 2 for before, after in zip(losses, losses[2:], strict=False)]
        slopes = [losses[1] - losses[0], *inner, losses[-1] - losses[-2]]
        right, left = len(losses) - 1, len(losses) - _MIN_POINTS
        chosen = left
        while left >= 0 and abs(slopes[right] - slopes[left]) > 0.005:
            chosen = left
            right, left = right - 1, left - 1
        return self.lrs[chosen]

    @property
    def minimum(self) -> float:
        """A tenth of the learning rate with the lowest loss: fastai's `minimum`."""
        self._check()
        return self.lrs[self.losses.index(min(self.losses))] / 10

    @property
    def steep(self) -> float:
        """Learning rate where the loss falls most steeply over its logarithm: fastai's `steep`."""
        self._check()
        logs = [math.log(lr) for lr in self.lrs]
        slopes = [(self.losses[i + 1] - self.losses[i]) / (logs[i + 1] - logs[i]) for i in range(len(self.losses) - 1)]
        return self.lrs[slopes.index(min(slopes))]

    def __repr__(self) -> str:
        return f"LRCurve({len(self.lrs)} points)"

    def suggestions(self) -> dict[str, float]:
        """Returns all four suggestions by name."""
        return {"valley": self.valley, "slide": self.slide, "minimum": self.minimum, "steep": self.steep}

    def plot(self, path: str | Path | None = None) -> "Figure":
        """Plots the loss over the learning rate, with the suggestions if there are any; needs the extra `plots`.

        Args:
            path: Image file to which the plot is also saved.
        """
        figure = new_figure(6.4, 4.2)
        axes = figure.add_subplot()
        axes.plot(self.lrs, self.losses, color="tab:gray")
        axes.set(xscale="log", xlabel="learning rate", ylabel="smoothed loss")
        if self._problem() is None:
            for name, lr in self.suggestions().items():
                loss = self.losses[min(bisect_left(self.lrs, lr), len(self.lrs) - 1)]
                axes.plot(lr, loss, "o", label=f"{name} {lr:.1e}")
            axes.legend()
        if path is not None:
            figure.savefig(path, dpi=110)
        return figure

    def _check(self) -> None:
        problem = self._problem()
        if problem is not None:
            raise ValueError(problem)

    def _problem(self) -> str | None:
        if len(self.losses) < _MIN_POINTS:
            return (
                f"Expected at least {_MIN_POINTS} losses to suggest a learning rate, but got {len(self.losses)}: take "
                "more steps, or lower `min_lr` if the loss diverged"
            )
        lowest = self.losses.index(min(self.losses))
        until_lowest = (self.raw_losses or self.losses)[: lowest + 1]
        quarter = max(len(until_lowest) // 4, 1)
        start, end = fmean(until_lowest[:quarter]), fmean(until_lowest[-quarter:])
        variance = fmean([(b - a) ** 2 / 2 for a, b in pairwise(until_lowest)] or [0.0])
        needed = max(_STANDARD_ERRORS * math.sqrt(2 * variance / quarter), _MIN_FALL * abs(start))
        if start - end <= needed:
            return (
                f"Expected the loss to fall by more than its noise, {needed:.2g}, but it went from {start:.4g} to "
                f"{end:.4g}, so that no `lr` can be suggested: raise `num_steps`, `max_lr` or the batch size, and "
                "check that the targets belong to the inputs"
            )
        return None


def smooth(losses: Sequence[float]) -> list[float]:
    """Returns the bias-corrected exponential moving average of losses, of decay 0.98: fastai's `AvgSmoothLoss`.

    >>> [round(value, 3) for value in smooth([1.0, 3.0])]
    [1.0, 2.01]
    """
    average, smoothed = 0.0, []
    for count, loss in enumerate(losses, start=1):
        average = _BETA * average + (1 - _BETA) * loss
        smoothed.append(average / (1 - _BETA**count))
    return smoothed
