"""Watching for a metric that no longer improves."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import lightning as L
from torch import Tensor


@dataclass(frozen=True)
class Plateau:
    """What ends a phase early: a metric that has not improved for some evaluations.

    Attributes:
        monitor: Name of a logged metric.
        mode: Whether lower or higher is better.
        patience: Evaluations without improvement that end a phase.
        min_delta: What counts as an improvement.
        restore_best: Whether the next phase begins from the best weights of this one, however it ended.
    """

    monitor: str = "val_loss"
    mode: Literal["min", "max"] = "min"
    patience: int = 3
    min_delta: float = 0.0
    restore_best: bool = True

    def __post_init__(self) -> None:
        if self.mode not in ("min", "max"):
            raise ValueError(f"Expected `mode` to be min or max, but got {self.mode!r}")
        if self.patience < 1 or self.min_delta < 0:
            raise ValueError(
                f"Expected `patience` above 0 and `min_delta` not below it, but got {self.patience}, {self.min_delta}"
            )


class PlateauWatch:
    """Follows the metric of a plateau through one phase."""

    def __init__(self, plateau: Plateau) -> None:
        self.plateau = plateau
        self.reset()

    def reset(self) -> None:
        """Begins a phase."""
        self.best: float | None = None
        self.waited = 0
        self.weights: dict[str, Tensor] | None = None

    def sees_plateau(self, trainer: L.Trainer, pl_module: L.LightningModule) -> bool:
        """Takes note of an evaluation; tells whether it was one too many without improvement.

        Raises:
            ValueError: If the metric was not logged.
        """
        logged = trainer.callback_metrics
        if self.plateau.monitor not in logged:
            raise ValueError(
                f"Expected `monitor` to be a logged metric ({', '.join(logged)}), but got {self.plateau.monitor!r}"
            )
        value = float(logged[self.plateau.monitor])
        loss = value if self.plateau.mode == "min" else -value
        if math.isfinite(loss) and (self.best is None or loss < self.best - self.plateau.min_delta):
            self.best, self.waited = loss, 0
            if self.plateau.restore_best:
                self.weights = {name: w.detach().cpu().clone() for name, w in pl_module.state_dict().items()}
        else:
            self.waited += 1
        over = trainer.strategy.reduce_boolean_decision(self.waited >= self.plateau.patience, all=False)
        return bool(over)

    def state_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint needs to go on watching."""
        return {"best": self.best, "waited": self.waited, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on watching from a checkpoint."""
        self.best, self.waited, self.weights = state["best"], state["waited"], state["weights"]
