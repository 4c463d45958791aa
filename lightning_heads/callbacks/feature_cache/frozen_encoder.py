"""Where a run leaves the encoder as it is."""

import math
from typing import Any, Protocol, runtime_checkable

import lightning as L
from lightning.pytorch.callbacks import WeightAveraging
from torch import nn

from ...optim.freezing import NormPolicy
from ...optim.param_groups import gather_groups, group_parameters
from ..phases.phases import Phases


class FrozenState(Protocol):
    """What holds in some steps."""

    start: int  # step of the run at which it begins
    first: int  # parameter group, the first that trains
    norm: NormPolicy


@runtime_checkable
class FreezingSchedule(Protocol):
    """A callback that freezes."""

    @property
    def can_end_early(self) -> bool:
        """Whether what holds may end before its time."""
        ...

    def phase_covering(self, start: int, stop: int) -> FrozenState | None:
        """Returns what holds in all steps from one to before another, or None where that changes or nothing does."""
        ...


def encoding_parts(model: nn.Module) -> list[nn.Module]:
    """Returns all parts of a model but its head."""
    return [part for part in model.children() if part is not model.head]


def encoding_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Returns the parameters of all but the head."""
    return [parameter for part in encoding_parts(model) for parameter in part.parameters()]


def schedule_of(trainer: L.Trainer) -> FreezingSchedule:
    """Returns the callback that freezes; there must be one."""
    return next(callback for callback in trainer.callbacks if isinstance(callback, FreezingSchedule))  # type: ignore[attr-defined]


def frozen_encoder(trainer: L.Trainer, task: Any, is_kept: bool) -> FrozenState | None:
    """Returns what holds for the rest of an epoch, or for all of a new one, if that leaves the encoder as it is."""
    schedule = schedule_of(trainer)
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    if not math.isfinite(trainer.num_training_batches):
        raise ValueError("Expected loaders of known length, for their features to be cached, but one has none")
    batches = int(trainer.num_training_batches)
    # of a batch whose end saved the checkpoint that a run goes on from, "completed" does not know yet
    left = batches - trainer.fit_loop.epoch_loop.batch_progress.current.processed % batches  # type: ignore[attr-defined]
    steps = -(-left // trainer.accumulate_grad_batches)
    state = schedule.phase_covering(trainer.global_step, trainer.global_step + steps)
    if state is None or not encoder_is_frozen(trainer, task, state):
        return None
    if not isinstance(schedule, Phases) and not is_kept:
        return None  # a search for a learning rate has few steps
    if state.start and any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        return None  # what is evaluated then is another encoder, an average of this one and of what it was
    return state


def encoder_is_frozen(trainer: L.Trainer, task: Any, state: FrozenState) -> bool:
    """Returns whether nothing but the head trains, and the rest gives the same features every time."""
    frozen = {*group_parameters(gather_groups(trainer.optimizers[0])[: state.first])}
    return state.norm == "eval" and all(parameter in frozen for parameter in encoding_parameters(task.model))
