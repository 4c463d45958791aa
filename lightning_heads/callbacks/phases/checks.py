"""Checks that a run can be trained in phases; each raises ValueError."""

from collections.abc import Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BaseFinetuning, LearningRateFinder, StochasticWeightAveraging
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy
from torch import Tensor, nn
from torch.optim import Optimizer

from ...optim.freezing import user_trainable
from ...optim.param_groups import gather_groups, group_parameters
from .plan import PlannedPhase

# what else does what these callbacks do
_RATE_SETTERS: dict[type[L.Callback], str] = {
    StochasticWeightAveraging: "`EMA` averages weights beside a schedule",
    LearningRateFinder: "`lr_find` suggests a learning rate before the fit",
    BaseFinetuning: "phases freeze and unfreeze the parameter groups",
}


def check_strategy(trainer: L.Trainer, phases: Sequence[PlannedPhase]) -> None:
    """Raises ValueError for a strategy that cannot freeze and unfreeze parameters during a run."""
    strategy = trainer.strategy
    if len({phase.first for phase in phases}) == 1 and not phases[0].first:
        return
    if not isinstance(strategy, (SingleDeviceStrategy, DDPStrategy, ModelParallelStrategy)):
        raise ValueError(
            "Expected a strategy whose parameters can be frozen during a run, that is one device, DDP or FSDP2 "
            f"(ModelParallelStrategy), but got {type(strategy).__name__}"
        )
    if isinstance(strategy, DDPStrategy) and strategy._ddp_kwargs.get("static_graph") and len(phases) > 1:
        raise ValueError(
            f"Expected DDP without `static_graph`, as {len(phases)} phases train different parameters, but it is set"
        )


def check_callbacks(trainer: L.Trainer, schedule: L.Callback) -> None:
    """Raises ValueError if a callback of Lightning sets learning rates, which the schedule would replace."""
    for other in trainer.callbacks:  # type: ignore[attr-defined]
        for kind, remedy in _RATE_SETTERS.items():
            if isinstance(other, kind):
                raise ValueError(
                    f"Expected {type(schedule).__name__} alone to set learning rates, but {type(other).__name__} sets "
                    f"them too; remove it, {remedy}"
                )


def check_rates(trainer: L.Trainer, schedule: L.Callback, expected: Sequence[Any]) -> None:
    """Raises ValueError if something else has changed the optimizer's groups or their learning rates.

    Args:
        trainer: The trainer, with one optimizer.
        schedule: The schedule.
        expected: Learning rate of each group. Tensors are not compared, as they may be on a device.
    """
    name = type(schedule).__name__
    if trainer.lr_scheduler_configs:
        other = type(trainer.lr_scheduler_configs[0].scheduler).__name__
        raise ValueError(f"Expected {name} alone to set learning rates, but the trainer has {other} too")
    rates = optimizer_rates(trainer.optimizers[0])
    if len(rates) != len(expected):
        raise ValueError(f"Expected the optimizer to keep its {len(expected)} groups, but it has {len(rates)}")
    for rate, own in zip(rates, expected, strict=True):
        if not isinstance(rate, Tensor) and rate != own:
            raise ValueError(
                f"Expected {name} alone to set learning rates, but something else has changed {own:g} to {rate:g}: a "
                "callback, a hook of the task or a scheduler; remove it"
            )


def optimizer_rates(optimizer: Optimizer) -> list[Any]:
    """Returns the learning rate of each of an optimizer's groups, a number or a tensor."""
    return [group["lr"] for group in optimizer.param_groups]


def check_trained(pl_module: nn.Module, optimizer: Optimizer, phases: Sequence[PlannedPhase]) -> None:
    """Raises ValueError for a phase in which the user froze every parameter of the groups that train."""
    groups, trainable = gather_groups(optimizer), user_trainable(pl_module)
    for phase in phases:
        if not any(id(p) in trainable for p in group_parameters(groups[phase.first :])):
            raise ValueError(
                f"Expected a phase to train parameters of its groups, but `requires_grad_` froze all of them: {phase}"
            )


def check_names(pl_module: nn.Module, optimizer: Optimizer) -> None:
    """Raises ValueError if the optimizer's parameters do not have the names that its checkpoint recorded.

    torch loads the state of an optimizer by position, so that a changed order would assign it to other parameters.
    """
    names = {id(parameter): name for name, parameter in pl_module.named_parameters()}
    for group in optimizer.param_groups:
        for parameter, saved_name in zip(group["params"], group.get("param_names", []), strict=False):
            name = names.get(id(parameter), saved_name)
            if not f".{name}".endswith(f".{saved_name}"):
                raise ValueError(
                    f"Expected the parameter groups of the checkpoint, but group {group.get('name')} has {name} "
                    f"where the checkpoint's optimizer has {saved_name}"
                )
