"""Detects that a monitored metric has stopped improving."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import lightning as L
from torch import Tensor


@dataclass(frozen=True)
class Plateau:
    """Condition that ends a phase early: a metric has not improved for some number of evaluations.

    Attributes:
        monitor: Name of a logged metric.
        mode: Whether lower or higher is better.
        patience: Number of evaluations without improvement after which a phase ends.
        min_delta: Smallest change that counts as an improvement.
        restore_best: Whether the next phase starts from the best weights of this one, whether it ended early or not.
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
                f"Expected `patience` to be at least 1 and `min_delta` to be at least 0, but got {self.patience} and "
                f"{self.min_delta}"
            )


class PlateauWatch:
    """Records the best value and weights of the monitored metric within one phase."""

    def __init__(self, plateau: Plateau) -> None:
        self.plateau = plateau
        self.reset()

    def reset(self) -> None:
        """Forgets the best value and weights, at the start of a phase."""
        self.best: float | None = None
        self.waited = 0
        self.weights: dict[str, Tensor] | None = None

    def sees_plateau(self, trainer: L.Trainer, pl_module: L.LightningModule) -> bool:
        """Records the metric; true once `patience` evaluations pass without improvement on any rank.

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
        is_over = trainer.strategy.reduce_boolean_decision(self.waited >= self.plateau.patience, all=False)
        return bool(is_over)

    def state_dict(self) -> dict[str, Any]:
        """Returns the best value and weights, and the number of evaluations since."""
        return {"best": self.best, "waited": self.waited, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.best, self.waited, self.weights = state["best"], state["waited"], state["weights"]
