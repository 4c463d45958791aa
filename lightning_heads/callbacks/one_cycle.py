"""The one-cycle schedule, as a pure function of the optimiser step."""

import math
from typing import Any

import lightning as L
from torch.optim import Optimizer


class OneCycle(L.Callback):
    """Warms learning rates up and anneals them by cosines over the whole fit, momentum the other way (Smith 2018).

    It sets both before every optimiser step from the number of steps done, so a resumed run goes on where it was.
    Source: fastai's `fit_one_cycle`. Learning rates of the groups are the peaks, so that slices keep their ratios.

    Args:
        pct_start: Fraction of the steps that warm up.
        div: Peak over the first learning rate.
        div_final: Peak over the last learning rate.
        moms: Momentum (the first beta of Adam) at the start, the peak and the end, or None to leave it alone.
    """

    def __init__(
        self,
        pct_start: float = 0.25,
        div: float = 25.0,
        div_final: float = 1e5,
        moms: tuple[float, float, float] | None = (0.95, 0.85, 0.95),
    ) -> None:
        if not 0 < pct_start < 1:
            raise ValueError(f"Expected `pct_start` in (0, 1), but got {pct_start}")
        self.pct_start, self.div, self.div_final, self.moms = pct_start, div, div_final, moms

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Sets learning rates and momentum for the step to come."""
        total = trainer.estimated_stepping_batches
        if not math.isfinite(total):
            raise ValueError("Expected `max_epochs` or `max_steps` to be set, as the cycle needs its length")
        # the trainer counts the steps of every optimiser
        position = min(trainer.global_step / max(len(trainer.optimizers), 1) / total, 1.0)
        for optimizer in trainer.optimizers:
            self._apply(optimizer, position)

    def _apply(self, optimizer: Optimizer, position: float) -> None:
        factor = anneal(position, self.pct_start, 1 / self.div, 1.0, 1 / self.div_final)
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
            if self.moms is None:
                continue
            momentum = anneal(position, self.pct_start, *self.moms)
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            elif "momentum" in group:
                group["momentum"] = momentum


def anneal(position: float, pct_start: float, start: float, middle: float, end: float) -> float:
    """Goes from start to middle by a cosine over the first `pct_start` of [0, 1], then to end by another.

    >>> [round(anneal(p, 0.25, 0.0, 1.0, 0.0), 2) for p in (0, 0.125, 0.25, 0.625, 1)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if position < pct_start:
        return _cosine(start, middle, position / pct_start)
    return _cosine(middle, end, (position - pct_start) / (1 - pct_start))


def _cosine(start: float, end: float, position: float) -> float:
    return start + (1 + math.cos(math.pi * (1 - position))) * (end - start) / 2
