"""Callback that trains in phases, each with its own frozen parameter groups and learning rates."""

import math
from collections.abc import Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn
from torch.optim import Optimizer

from ...optim.param_groups import base_rates, gather_groups, set_lr
from .checks import check_callbacks, check_names, check_rates, check_strategy, check_trained, optimizer_rates
from .freezing import freeze_optimizer_groups
from .plan import Phase, PlannedPhase, end_early, plan_phases
from .plateau import Plateau, PlateauWatch
from .table import phase_table


class Phases(L.Callback):
    """Trains in phases, each with a length, the parameter groups that train, their learning rates and a schedule shape.

    Learning rates, momentum and the frozen groups are a pure function of the optimizer step and are set before each
    step, so that a resumed run continues in the middle of a phase. All parameter groups are in the optimizer from the
    start. A parameter that a phase freezes loses its gradient, and the optimizer's moments are cleared where the groups
    that train change. Under DDP, the module is then wrapped again, so that exactly the gradients of trained parameters
    are reduced. A table of the phases is logged when training starts. Groups that the last phase froze stay frozen
    after the run. A sharded run (FSDP2) resumes only from a checkpoint in which every group trains, as torch loads
    the moments of every parameter or of none.

    The groups are read from the optimizer: those of `optimizer_groups`, as every task of this package creates them, or
    your own, ordered from the input to the head.

    Args:
        phases: The phases, in order.
        plateau: Ends a phase early when a monitored metric stops improving. The other phases keep their lengths, so
            that the run ends earlier.
        allow_new_plan: Whether a resumed run may have other phases, learning rates or another length than its
            checkpoint. By default that is an error.

    Raises:
        ValueError: If the phases do not fill the run or do not fit the groups, something else sets learning rates too,
            or the strategy cannot freeze parameters during a run.

    >>> Phases([Phase(epochs=1, train_from=-1, lr=1e-2), Phase(lr=(1e-5, 1e-3))]).first_phase([1e-3, 1e-3]).train_from
    -1
    """

    def __init__(
        self, phases: Sequence[Phase], *, plateau: Plateau | None = None, allow_new_plan: bool = False
    ) -> None:
        if not phases:
            raise ValueError("Expected at least one phase, but got none")
        self.phases = [*phases]
        self.allow_new_plan = allow_new_plan
        self._watch = None if plateau is None else PlateauWatch(plateau)
        self._planned: list[PlannedPhase] = []
        self._current: PlannedPhase | None = None
        self._eval_modules: list[nn.Module] = []
        self._base_rates: list[float] = []
        self._last_rates: list[Any] | None = None  # of each of the optimizer's groups, in the last batch
        self._plan: list[tuple[str, list[float]]] | None = None
        self._ended_early: list[tuple[int, int]] = []  # index of each phase that a plateau ended, and the step

    def phases_for(self, rates: list[float]) -> list[Phase]:
        """Returns the phases for a task with these learning rates, one a group; subclasses may depend on the rates."""
        return self.phases

    def first_phase(self, rates: list[float]) -> Phase:
        """Returns the first phase for a task with these learning rates, one a group."""
        return self.phases_for(rates)[0]

    @property
    def planned_phases(self) -> list[PlannedPhase]:
        """The phases of a run that has started, with their first and last steps."""
        return [*self._planned]

    @property
    def can_end_early(self) -> bool:
        """Whether a plateau may end a phase."""
        return self._watch is not None

    def phase_covering(self, start: int, stop: int) -> PlannedPhase | None:
        """Returns the phase that contains all steps from `start` to `stop - 1`, or None if no single phase does."""
        phase = self._phase_at(start)
        return phase if stop <= phase.stop or phase is self._planned[-1] else None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Checks the trainer and reads the base learning rates before a checkpoint replaces them."""
        others = [c for c in trainer.callbacks if isinstance(c, Phases) and c is not self]  # type: ignore[attr-defined]
        if others:
            raise ValueError(
                f"Expected one schedule, but got {type(self).__name__} and {type(others[0]).__name__}; `Phases` "
                "combines several phases in one schedule"
            )
        if len(trainer.optimizers) != 1:
            raise ValueError(f"Expected one optimizer to train in phases, but got {len(trainer.optimizers)}")
        averages = any(isinstance(c, WeightAveraging) for c in trainer.callbacks)  # type: ignore[attr-defined]
        if averages and self._watch is not None and self._watch.plateau.restore_best:
            raise ValueError(
                "Expected a plateau with `restore_best=False` together with averaged weights, as validation then "
                "measures the average and not the weights in training, but it is True"
            )
        if trainer.lr_scheduler_configs:
            raise ValueError("Expected no `lr_scheduler`, as the phases set the learning rates, but there is one")
        check_callbacks(trainer, self)
        self._base_rates = base_rates(gather_groups(trainer.optimizers[0]))
        # a checkpoint replaces those of the optimizer
        self._last_rates = optimizer_rates(trainer.optimizers[0]) if trainer.ckpt_path is None else None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Assigns the phases to the steps of the run, then checks and logs them."""
        total = trainer.estimated_stepping_batches
        if not math.isfinite(total) or total < 1:
            raise ValueError(
                "Expected `max_steps`, or `max_epochs` and data of known length, as phases need the length of the run, "
                "but got neither"
            )
        epoch = trainer.num_training_batches / trainer.accumulate_grad_batches
        epoch = math.ceil(epoch) if math.isfinite(epoch) else epoch
        self._planned = plan_phases(
            self.phases_for(self._base_rates),
            self._base_rates,
            len(self._base_rates),
            int(total),
            epoch,
            cut=bool(trainer.fast_dev_run),  # type: ignore[attr-defined]
        )
        check_strategy(trainer, self._planned)
        check_trained(pl_module, trainer.optimizers[0], self._planned)
        plan = [(str(phase), phase.signature()) for phase in self._planned]
        if trainer.global_step and not self.allow_new_plan and self._plan not in (None, plan):
            raise ValueError(
                f"Expected the phases that the run began with, but {_first_difference(self._plan or [], plan)}. "
                "`max_epochs`, the batch size and the data decide the steps; pass `allow_new_plan=True` to "
                f"{type(self).__name__} to continue with the new phases"
            )
        self._plan = plan
        self._current = None
        if not trainer.global_step:
            self._ended_early = []
            if self._watch is not None:
                self._watch.reset()
        for index, step in self._ended_early:
            self._planned = end_early(self._planned, index, step)
        check_names(pl_module, trainer.optimizers[0])
        rank_zero_info(phase_table(pl_module, trainer.optimizers[0], self._planned, epoch))

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Sets the frozen groups, learning rates and momentum of the next optimizer step.

        Raises:
            ValueError: If something else has changed the learning rates since the last batch.
        """
        if self._last_rates is not None:
            check_rates(trainer, self, self._last_rates)
        phase = self._phase_at(trainer.global_step)
        if phase is not self._current:
            self._enter(trainer, pl_module, phase)
        for module in self._eval_modules:
            if module.training:  # assigning a module's attribute is slow
                module.training = False
        rates, momentum = phase.at(trainer.global_step)
        for members, rate in zip(gather_groups(trainer.optimizers[0]), rates, strict=True):
            for group in members:
                set_lr(group, rate)
                if momentum is not None:
                    _set_momentum(group, momentum)
        self._last_rates = optimizer_rates(trainer.optimizers[0])

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops a run that a plateau shortened after the last step of its phases."""
        if self._ended_early and trainer.global_step >= self._planned[-1].stop:
            trainer.should_stop = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Warns if the run ended before its last phase did."""
        stop = self._planned[-1].stop
        if trainer.global_step < stop and not trainer.should_stop:
            rank_zero_warn(f"The run ended at step {trainer.global_step}, before its phases end at step {stop}")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Ends the current phase if the monitored metric has stopped improving."""
        is_in_fit = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if self._watch is None or self._current is None or not is_in_fit:
            return
        index, step = self._planned.index(self._current), trainer.global_step
        if self._watch.sees_plateau(trainer, pl_module) and step < self._current.stop:
            self._ended_early.append((index, step))
            self._planned = end_early(self._planned, index, step)
            self._current = self._planned[index]
            rank_zero_info(
                f"{self._watch.plateau.monitor} no longer improves: phase {index + 1} ends at step {step}, and the run "
                f"at step {self._planned[-1].stop}"
            )
            trainer.should_stop = trainer.should_stop or index + 1 == len(self._planned)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Saves the plan under one key for all subclasses, so that a run resumed with another schedule is detected."""
        watch = None if self._watch is None else self._watch.state_dict()
        checkpoint["phases"] = {"followed": self._plan, "ended": self._ended_early, "watch": watch}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        state = checkpoint.get("phases")
        if state is None or not trainer.training:
            return
        plan = state["followed"]
        self._plan = None if plan is None else [(text, numbers) for text, numbers in plan]
        self._ended_early = [(index, step) for index, step in state["ended"]]
        if self._watch is not None and state["watch"] is not None:
            self._watch.load_state_dict(state["watch"])

    def _phase_at(self, step: int) -> PlannedPhase:
        return next((phase for phase in self._planned if step < phase.stop), self._planned[-1])

    def _enter(self, trainer: L.Trainer, pl_module: L.LightningModule, phase: PlannedPhase) -> None:
        optimizer = trainer.optimizers[0]
        index = self._planned.index(phase)
        if index and trainer.global_step == phase.start:
            self._start_phase(pl_module, optimizer, self._planned[index - 1], phase)
        self._eval_modules = freeze_optimizer_groups(trainer, pl_module, phase.first, phase.norm)
        self._current = phase

    def _start_phase(self, pl_module: nn.Module, optimizer: Optimizer, last: PlannedPhase, phase: PlannedPhase) -> None:
        """Clears moments and restores the best weights between two phases, also in a run resumed there."""
        if phase.first != last.first:
            # the moments belong to the gradients of other groups; fastai's `freeze_to` clears them as well
            _clear_state(optimizer)
        if self._watch is not None:
            if self._watch.weights is not None:
                pl_module.load_state_dict(self._watch.weights)
                _clear_state(optimizer)
            self._watch.reset()


def _first_difference(before: list[tuple[str, list[float]]], now: list[tuple[str, list[float]]]) -> str:
    """Describes the first difference between two plans."""
    if len(before) != len(now):
        return f"there were {len(before)} and are {len(now)}"
    index = next(i for i, (old, new) in enumerate(zip(before, now, strict=True)) if old != new)
    return f"phase {index + 1} was {before[index][0]} and is {now[index][0]}"


def _clear_state(optimizer: Optimizer) -> None:
    """Clears the state (moments) of an optimizer and of any optimizer that it wraps."""
    optimizer.state.clear()
    for inner in vars(optimizer).values():
        if isinstance(inner, Optimizer):
            _clear_state(inner)


def _set_momentum(group: dict[str, Any], momentum: float) -> None:
    if "betas" in group:
        group["betas"] = (momentum, *group["betas"][1:])
    elif group.get("momentum"):
        group["momentum"] = momentum
