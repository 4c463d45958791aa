"""Freezing and unfreezing parameter groups during a run."""

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
    """Freezes the optimizer's parameter groups before index `first`, unfreezes the others and updates the strategy.

    DDP reduces the gradients of the parameters that required them when it wrapped the module. If `requires_grad` of
    any parameter changes, the module is therefore wrapped again.

    Args:
        trainer: The trainer, during `fit`, with one optimizer.
        pl_module: The module that is fitted.
        first: Index of the first parameter group that trains.
        norm: What normalization layers of the frozen groups do; see `freeze_to`.

    Returns:
        The modules in evaluation mode while frozen.
    """
    for module in pl_module.modules():
        if isinstance(module, FSDPModule):
            # an FSDP root keeps its parameters unsharded until its backward pass, which a frozen root never runs
            module.reshard()
    required_grad = [p.requires_grad for p in pl_module.parameters()]
    eval_modules = freeze_parameters(pl_module, group_parameters(gather_groups(trainer.optimizers[0])[:first]), norm)
    strategy = trainer.strategy
    changed = required_grad != [p.requires_grad for p in pl_module.parameters()]
    if changed and isinstance(strategy, DDPStrategy) and isinstance(strategy.model, DistributedDataParallel):
        strategy.model = trainer.lightning_module
        strategy.configure_ddp()
    return eval_modules
