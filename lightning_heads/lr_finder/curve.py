"""What a search over learning rates found: the curve of losses and the learning rates it suggests."""

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

_BETA = 0.98  # of fastai's AvgSmoothLoss
_LAST = 5  # rungs that fastai drops at the end, where the loss diverges
_MIN_POINTS = 16  # `slide` compares slopes 15 rungs apart
_DEVIATIONS = 3.0  # standard errors that a fall must exceed
_MIN_FALL = 1e-3  # as a fraction of the loss at the start


@dataclass(frozen=True)
class LRCurve:
    """Smoothed loss over learning rate, one point an optimizer step (Smith 2017), and fastai's four readings of it.

    Every reading raises a ValueError where the curve says nothing: there are fewer than 16 points, or the loss does not
    fall. It falls if, of the raw losses up to the lowest smoothed one, the last quarter is on average below the first
    by 0.1 % and by three standard errors of that difference, as losses of neighboring steps vary.

    Attributes:
        lrs: Learning rates of the last parameter group.
        losses: Smoothed losses.
        raw_losses: Losses before smoothing; without them, noise is read off the smoothed ones.

    >>> curve = LRCurve([10.0**-k for k in range(20, 0, -1)], [*range(30, 11, -1), 60])
    >>> f"{curve.minimum:.0e}"
    '1e-03'
    """

    lrs: list[float]
    losses: list[float]
    raw_losses: list[float] = field(default_factory=list)

    @classmethod
    def from_run(cls, lrs: Sequence[float], losses: Sequence[float], num_steps: int) -> "LRCurve":
        """Returns the curve of a run, smoothed, without its start and end as fastai's `lr_find` has it.

        A run that would keep fewer than 16 points is kept whole.

        Args:
            lrs: Learning rates, one an optimizer step.
            losses: Raw losses, of which only the last may not be finite.
            num_steps: Steps that the run was meant to have.
        """
        smoothed = smooth(losses)
        count = len(losses) if math.isfinite(smoothed[-1]) else len(losses) - 1
        first, stop = num_steps // 10, len(losses) - _LAST
        if math.isnan(smoothed[-1]):  # fastai goes on to the end then, and cuts there first
            stop = min(count, num_steps - _LAST)
        if stop - first < _MIN_POINTS:
            first, stop = 0, count
        return cls([*lrs[first:stop]], smoothed[first:stop], [*losses[first:stop]])

    @property
    def suggestion(self) -> float:
        """The learning rate to take: `valley`."""
        return self.valley

    @property
    def valley(self) -> float:
        """Half way down the longest row of falling losses, others between them left out; fastai's `valley`."""
        self._check()
        losses = array("f", self.losses)  # equal where single precision has them so, as in fastai
        lengths: list[int] = []
        for i, loss in enumerate(losses):
            lengths.append(1 + max((lengths[j] for j in range(i) if losses[j] > loss), default=0))
        longest = max(lengths)
        return self.lrs[lengths.index(longest) - longest + longest // 3 + longest // 6]

    @property
    def slide(self) -> float:
        """Where, from the end back, slopes 15 rungs apart first are alike; fastai's `slide`."""
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
        """A tenth of the learning rate with the lowest loss; fastai's `minimum`."""
        self._check()
        return self.lrs[self.losses.index(min(self.losses))] / 10

    @property
    def steep(self) -> float:
        """Where the loss falls most steeply over the logarithm of the learning rate; fastai's `steep`."""
        self._check()
        logs = [math.log(lr) for lr in self.lrs]
        slopes = [(self.losses[i + 1] - self.losses[i]) / (logs[i + 1] - logs[i]) for i in range(len(self.losses) - 1)]
        return self.lrs[slopes.index(min(slopes))]

    def __repr__(self) -> str:
        return f"LRCurve({len(self.lrs)} points)"

    def suggestions(self) -> dict[str, float]:
        """Returns all four readings by their names."""
        return {"valley": self.valley, "slide": self.slide, "minimum": self.minimum, "steep": self.steep}

    def plot(self, path: str | Path | None = None) -> "Figure":
        """Draws the loss over the learning rate, and the suggestions if there are any; needs the extra `plots`.

        Args:
            path: Picture file to write as well.
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
        flaw = self._problem()
        if flaw is not None:
            raise ValueError(flaw)

    def _problem(self) -> str | None:
        if len(self.losses) < _MIN_POINTS:
            return (
                f"Expected at least {_MIN_POINTS} losses to suggest a learning rate, but got {len(self.losses)}: take "
                "more steps, or lower `min_lr` if the loss diverged"
            )
        lowest = self.losses.index(min(self.losses))
        before = (self.raw_losses or self.losses)[: lowest + 1]
        quarter = max(len(before) // 4, 1)
        start, end = fmean(before[:quarter]), fmean(before[-quarter:])
        variance = fmean([(b - a) ** 2 / 2 for a, b in pairwise(before)] or [0.0])
        needed = max(_DEVIATIONS * math.sqrt(2 * variance / quarter), _MIN_FALL * abs(start))
        if start - end <= needed:
            return (
                f"Expected the loss to fall by more than its noise, {needed:.2g}, but it went from {start:.4g} to "
                f"{end:.4g}, so that no `lr` can be suggested: raise `num_steps`, `max_lr` or the batch size, and "
                "check that the targets belong to the inputs"
            )
        return None


def smooth(losses: Sequence[float]) -> list[float]:
    """Returns the exponential moving average of losses, 0.98 of it old, free of bias: fastai's `AvgSmoothLoss`.

    >>> [round(value, 3) for value in smooth([1.0, 3.0])]
    [1.0, 2.01]
    """
    average, smoothed = 0.0, []
    for count, loss in enumerate(losses, start=1):
        average = _BETA * average + (1 - _BETA) * loss
        smoothed.append(average / (1 - _BETA**count))
    return smoothed
