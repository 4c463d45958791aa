"""Freezing in the middle of a run."""

import lightning as L
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from ...optim.freezing import NormPolicy, freeze_parameters
from ...optim.param_groups import gather_groups, group_parameters


def freeze_optimizer_groups(
    trainer: L.Trainer, pl_module: L.LightningModule, first: int, norm: NormPolicy
) -> list[nn.Module]:
    """Freezes the optimizer's parameter groups before one, thaws the others, and tells the strategy.

    DDP reduces the parameters that required gradients when it wrapped the module, no matter what they do later, so it
    wraps anew where these change.

    Args:
        trainer: A trainer that fits, with one optimizer.
        pl_module: Its module.
        first: Index of the first parameter group that trains.
        norm: See `freeze_to`.

    Returns:
        The modules put in evaluation mode.
    """
    for module in pl_module.modules():
        if isinstance(module, FSDPModule):
            # a root keeps gathered parameters until its backward pass, which a frozen one never runs
            module.reshard()
    before = [p.requires_grad for p in pl_module.parameters()]
    evaluated = freeze_parameters(pl_module, group_parameters(gather_groups(trainer.optimizers[0])[:first]), norm)
    strategy = trainer.strategy
    changed = before != [p.requires_grad for p in pl_module.parameters()]
    if changed and isinstance(strategy, DDPStrategy) and isinstance(strategy.model, DistributedDataParallel):
        strategy.model = trainer.lightning_module
        strategy.configure_ddp()
    return evaluated
