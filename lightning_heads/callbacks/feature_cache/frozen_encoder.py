"""Finds the steps in which the encoder is frozen and deterministic."""

import math
from typing import Any, Protocol, runtime_checkable

import lightning as L
from lightning.pytorch.callbacks import WeightAveraging
from torch import nn

from ...optim.freezing import NormPolicy
from ...optim.param_groups import gather_groups, group_parameters
from ...utils.modules import uncompiled
from ..phases.phases import Phases


class FrozenState(Protocol):
    """Which parameter groups are frozen, and how, in a range of steps."""

    start: int  # first step of the range in the run
    first: int  # index of the first parameter group that trains
    norm: NormPolicy  # what normalization layers of the frozen groups do


@runtime_checkable
class FreezingSchedule(Protocol):
    """A callback that freezes parameter groups."""

    @property
    def can_end_early(self) -> bool:
        """Whether a range of steps may end earlier than planned."""
        ...

    def phase_covering(self, start: int, stop: int) -> FrozenState | None:
        """Returns the state from `start` to `stop - 1`, or None if it changes within these steps or is unknown."""
        ...


def encoding_parts(model: nn.Module) -> list[nn.Module]:
    """Returns all children of a model but its head."""
    model = uncompiled(model)
    return [part for part in model.children() if part is not model.head]


def encoding_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Returns all parameters of a model but those of its head."""
    return [parameter for part in encoding_parts(model) for parameter in part.parameters()]


def schedule_of(trainer: L.Trainer) -> FreezingSchedule:
    """Returns the trainer's first callback that freezes parameter groups; there must be one."""
    return next(callback for callback in trainer.callbacks if isinstance(callback, FreezingSchedule))  # type: ignore[attr-defined]


def frozen_encoder(trainer: L.Trainer, task: Any, is_kept: bool) -> FrozenState | None:
    """Returns the freezing state of the rest of the epoch if the encoder is frozen and deterministic, else None.

    Args:
        trainer: The trainer, during `fit`.
        task: The task that is fitted.
        is_kept: Whether features outlive the run. `lr_find` has too few steps to cache them otherwise.

    Raises:
        ValueError: If the number of training batches is unknown.
    """
    schedule = schedule_of(trainer)
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    if not math.isfinite(trainer.num_training_batches):
        raise ValueError("Expected loaders of known length, to cache their features, but the training loader has none")
    batches = int(trainer.num_training_batches)
    # in a checkpoint that was saved at the end of a batch, "completed" does not yet count that batch
    num_remaining = batches - trainer.fit_loop.epoch_loop.batch_progress.current.processed % batches  # type: ignore[attr-defined]
    num_steps = -(-num_remaining // trainer.accumulate_grad_batches)
    state = schedule.phase_covering(trainer.global_step, trainer.global_step + num_steps)
    if state is None or not encoder_is_frozen(trainer, task, state):
        return None
    if not isinstance(schedule, Phases) and not is_kept:
        return None  # `lr_find` has too few steps to be worth encoding all images
    if state.start and any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        return None  # validation then uses an average of this encoder and its earlier weights
    return state


def encoder_is_frozen(trainer: L.Trainer, task: Any, state: FrozenState) -> bool:
    """Returns whether only the head trains, and the rest of the model is deterministic."""
    frozen = {*group_parameters(gather_groups(trainer.optimizers[0])[: state.first])}
    return state.norm == "eval" and all(parameter in frozen for parameter in encoding_parameters(task.model))
