"""Learning rate finder: trains with an increasing learning rate and records the loss."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import lightning as L
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from torch import Tensor
from tqdm import tqdm

from ..callbacks.phases.freezing import freeze_optimizer_groups
from ..optim.freezing import NormPolicy, check_norm, first_group
from ..optim.param_groups import base_rates, gather_groups, set_lr
from ..utils.modules import uncompiled
from .curve import LRCurve, smooth
from .snapshot import preserved_state

# warnings about validation and logging, which are disabled during the search
_IRRELEVANT = ("You defined a `validation_step`", "The number of training batches")


class Frozen(Protocol):
    """Which parameter groups of a phase are frozen, and how; see `freeze_to`."""

    @property
    def train_from(self) -> int:
        """First parameter group that trains."""
        ...

    @property
    def norm(self) -> NormPolicy:
        """What normalization layers of the frozen groups do."""
        ...


@runtime_checkable
class PhaseSchedule(Protocol):
    """A callback that trains in phases."""

    def first_phase(self, rates: list[float]) -> Frozen:
        """Returns the first phase for a task with these learning rates, one a parameter group."""
        ...


def lr_find(
    trainer: L.Trainer,
    task: L.LightningModule,
    data: Any = None,
    *,
    min_lr: float = 1e-7,
    max_lr: float = 10.0,
    num_steps: int = 100,
    train_from: int | None = None,
    norm: NormPolicy = "train",
    stop_div: bool = True,
    progress: bool = True,
) -> LRCurve:
    """Trains for some steps while the learning rate rises exponentially, and returns the losses: fastai's `lr_find`.

    The trainer's settings apply, except for those of its length, validation, logging and checkpoints. Only callbacks
    whose class has `in_lr_find = True` are called. Afterwards, the trainer, the task, the data and the random state are
    restored bit-exactly. Source: Smith 2017, "Cyclical learning rates for training neural networks".

    Args:
        trainer: The trainer that will fit the task, new or used.
        task: Any module with one optimizer. Learning rates of its groups keep their ratios; schedulers have no effect.
        data: A data module, a loader or loaders of training batches, or None for the task's own.
        min_lr: Learning rate of the last group at the first step.
        max_lr: Learning rate that the step after the last one would have.
        num_steps: Number of optimizer steps. The data are repeated as often as needed.
        train_from: First parameter group that trains, fastai's `freeze_to`. By default it and `norm` are those of the
            first phase of the trainer's schedule; without a schedule, nothing is frozen or unfrozen.
        norm: What normalization layers of the frozen groups do, if `train_from` is given: `train` trains them, `stats`
            only updates their running statistics, `eval` fixes both and disables dropout; see `freeze_to`.
        stop_div: Whether to stop when the smoothed loss exceeds four times its lowest value. A non-finite loss always
            stops the search.
        progress: Whether to show a progress bar, if the trainer has one.

    Raises:
        ValueError: If an argument is out of range, the task does not have one optimizer with a learning rate, the
            strategy spawns processes, which do not return their losses, there is no training batch, or the first loss
            is not finite.
    """
    if not 0 < min_lr < max_lr < math.inf:
        raise ValueError(f"Expected 0 < `min_lr` < `max_lr`, both finite, but got {min_lr} and {max_lr}")
    if not isinstance(num_steps, int) or num_steps < 1:
        raise ValueError(f"Expected `num_steps` to be a positive integer, but got {num_steps}")
    check_norm(norm)
    if not task.automatic_optimization:
        raise ValueError("Expected a task with automatic optimization, but it optimizes manually")
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise ValueError(
            "Expected a strategy that trains in this process, such as `ddp`, but it spawns processes that train"
        )
    module = uncompiled(task)
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    schedule = next((c for c in callbacks if isinstance(c, PhaseSchedule)), None)
    chosen = [c for c in callbacks if getattr(type(c), "in_lr_find", False)]
    has_bar = progress and trainer.is_global_zero and trainer.progress_bar_callback is not None
    with (
        preserved_state(trainer, module, data, *chosen),
        tqdm(desc="learning rates", total=num_steps, unit="step", disable=not has_bar) as bar,
        warnings.catch_warnings(),
    ):
        for message in _IRRELEVANT:
            warnings.filterwarnings("ignore", message)
        freezing = schedule if train_from is None else _FixedPhase(train_from, norm)
        sweep = _LRSweep(min_lr, max_lr, num_steps, freezing, stop_div, bar)
        _remove_limits(trainer, num_steps)
        trainer.callbacks = [sweep, *chosen]  # type: ignore[attr-defined]
        vars(module)["configure_callbacks"] = list  # the task's own callbacks are not called
        trainer.fit(task, data)
    if not sweep.losses:
        raise ValueError("Expected at least one training batch with a loss, but there is none")
    return LRCurve.from_run(sweep.lrs, sweep.losses, num_steps)


def _remove_limits(trainer: Any, num_steps: int) -> None:
    """Gives a trainer a new fit loop, limited by steps alone, and disables validation, logging and profiling."""
    trainer.fit_loop = type(trainer.fit_loop)(trainer, min_epochs=0, max_epochs=-1)
    trainer.fit_loop.epoch_loop.max_steps = num_steps
    trainer.limit_val_batches = 0
    trainer.loggers = [DummyLogger()] if trainer.loggers else []
    trainer.profiler = PassThroughProfiler()


@dataclass(frozen=True)
class _FixedPhase:
    """A schedule of one phase, which trains the groups from `train_from`."""

    train_from: int
    norm: NormPolicy

    def first_phase(self, rates: list[float]) -> Frozen:
        return self


@dataclass
class _FrozenState:
    """Which parameter groups are frozen during the search; for `FeatureCache`."""

    first: int
    norm: NormPolicy
    start: int = 0


class _LRSweep(L.Callback):
    """Raises the learning rate before every optimizer step and records the loss after it."""

    can_end_early = False  # read by `FeatureCache`, which also calls `phase_covering`

    def __init__(
        self,
        min_lr: float,
        max_lr: float,
        num_steps: int,
        freezing: PhaseSchedule | None,
        stop_div: bool,
        bar: "tqdm[Any]",
    ) -> None:
        self.min_lr, self.max_lr, self.num_steps = min_lr, max_lr, num_steps
        self.freezing = freezing
        self.stop_div, self.bar = stop_div, bar
        self.lrs: list[float] = []
        self.losses: list[float] = []
        self._ratios: list[float] = []
        self._step_losses: list[Tensor] = []
        self._steps = 0
        self._frozen: _FrozenState | None = None

    def phase_covering(self, start: int, stop: int) -> "_FrozenState | None":
        """Returns the frozen groups, which are the same at every step, or None without freezing."""
        return self._frozen

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Reads the ratios of the groups' learning rates and removes schedulers, which would change them."""
        if len(trainer.optimizers) != 1 or not all("lr" in group for group in trainer.optimizers[0].param_groups):
            raise ValueError("Expected `configure_optimizers` to return one optimizer with learning rates")
        trainer.strategy.lr_scheduler_configs = []
        rates = [float(group.get("initial_lr", group["lr"])) for group in trainer.optimizers[0].param_groups]
        if not rates[-1] > 0:
            raise ValueError(f"Expected the last group's learning rate to be positive, but got {rates[-1]}")
        self._ratios = [rate / rates[-1] for rate in rates]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.freezing is None:
            return
        groups = gather_groups(trainer.optimizers[0])
        phase = self.freezing.first_phase(base_rates(groups))
        self._frozen = _FrozenState(first_group(phase.train_from, len(groups), "train_from"), phase.norm)
        freeze_optimizer_groups(trainer, pl_module, self._frozen.first, self._frozen.norm)

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        """Sets the learning rates in the last hook before the step, so that values set earlier are overwritten."""
        lr = self.min_lr * (self.max_lr / self.min_lr) ** (trainer.global_step / self.num_steps)
        for group, ratio in zip(optimizer.param_groups, self._ratios, strict=True):
            set_lr(group, lr * ratio)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if isinstance(outputs, Mapping) and outputs:
            # Lightning divides the loss when it accumulates gradients
            self._step_losses.append(outputs["loss"].detach().float() * trainer.accumulate_grad_batches)
        if trainer.global_step == self._steps or not self._step_losses:
            return
        self._steps = trainer.global_step
        loss = float(trainer.strategy.reduce(torch.stack(self._step_losses).mean(), reduce_op="mean"))
        self._step_losses = []
        if not (self.losses or math.isfinite(loss)):
            raise ValueError(f"Expected a finite loss at the lowest learning rate, {self.min_lr:g}, but got {loss}")
        self.losses.append(loss)
        self.lrs.append(float(trainer.optimizers[0].param_groups[-1]["lr"]))
        smoothed = smooth(self.losses)
        lowest = min(smoothed)
        diverges = smoothed[-1] > lowest + 3 * abs(lowest)
        trainer.should_stop = not math.isfinite(smoothed[-1]) or (self.stop_div and diverges)
        self.bar.set_postfix(lr=f"{self.lrs[-1]:.1e}", loss=f"{smoothed[-1]:.3g}", refresh=False)
        self.bar.update()
