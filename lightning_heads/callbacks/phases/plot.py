"""Plot of a schedule."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from ...drawing.figure import new_figure
from ...optim.param_groups import LearningRate, slice_lr
from .phases import Phases
from .plan import plan_phases

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_schedule(
    schedule: Phases,
    *,
    epochs: int,
    lr: LearningRate,
    num_groups: int = 3,
    epoch_steps: int = 100,
    path: str | Path | None = None,
) -> "Figure":
    """Plots the learning rate of each parameter group while it trains, and the momentum; needs the extra `plots`.

    Args:
        schedule: `Phases`, or a subclass such as `FineTune`.
        epochs: Length of the run in epochs.
        lr: Learning rate of the task.
        num_groups: Number of parameter groups of the model.
        epoch_steps: Number of optimizer steps an epoch.
        path: Image file to which the plot is also saved.

    Raises:
        ValueError: If the phases do not fit the run or the groups.
    """
    rates = slice_lr(lr, num_groups)
    total = epochs * epoch_steps
    phases = plan_phases(schedule.phases_for(rates), rates, num_groups, total, epoch_steps)
    curves: list[list[float]] = [[] for _ in range(num_groups)]
    momenta: list[float] = []
    for phase in phases:
        for step in range(phase.start, phase.stop):
            values, momentum = phase.at(step)
            for group, value in enumerate(values):
                curves[group].append(value if group >= phase.first else math.nan)
            momenta.append(math.nan if momentum is None else momentum)
    figure = new_figure(8, 5)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    positions = [step / epoch_steps for step in range(total)]
    for group, curve in enumerate(curves):
        upper.plot(positions, curve, label=f"group {group}" + (" (head)" if group == num_groups - 1 else ""))
    upper.set(yscale="log", ylabel="learning rate")
    upper.legend()
    lower.plot(positions, momenta, color="tab:gray")
    lower.set(xlabel="epoch", ylabel="momentum")
    for phase in phases[1:]:
        for axes in (upper, lower):
            axes.axvline(phase.start / epoch_steps, color="lightgray", zorder=0)
    if path is not None:
        figure.savefig(path, dpi=110)
    return figure
