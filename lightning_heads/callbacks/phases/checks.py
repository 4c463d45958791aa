"""Checks that a run can be trained in phases; each raises ValueError."""

from collections.abc import Sequence

import lightning as L
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy
from torch import nn
from torch.optim import Optimizer

from ...optim.freezing import user_trainable
from ...optim.param_groups import gather_groups, group_parameters
from .plan import PlannedPhase


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
