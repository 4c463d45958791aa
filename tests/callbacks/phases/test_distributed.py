"""Phases under DDP and FSDP2 on two processes, compared with one process that trains on the whole batch."""

import os
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import BackboneFinetuning
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import lightning_heads as lh
from tests.helpers import Net, X, Y, run_processes, trainer_for

# first group that trains, and number of steps: freeze, unfreeze, freeze, unfreeze
PHASES = [(-1, 3), (0, 3), (-1, 2), (0, 4)]


class Sharded(lh.TransferModule):
    """The task under FSDP2, with one root, or with the body as another, which no backward pass reshards if frozen."""

    def __init__(self, *args: Any, one_root: bool, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.one_root = one_root

    def configure_model(self) -> None:
        assert self.device_mesh is not None
        mesh = self.device_mesh["data_parallel"]
        fully_shard(self.model.body, mesh=mesh)
        fully_shard(self.model if self.one_root else self.model.head, mesh=mesh)


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {
        name: (p.full_tensor() if hasattr(p, "full_tensor") else p).detach().clone()
        for name, p in module.named_parameters()
    }


def train(folder: Path, kind: str, world_size: int, accumulate: int, norm: Any) -> dict[str, Tensor]:
    torch.manual_seed(3)
    model, criterion = Net(batch_norm=False).double(), nn.CrossEntropyLoss()
    task = (
        Sharded(model, criterion, lr=1e-2, one_root=kind == "fsdp")
        if kind.startswith("fsdp")
        else lh.TransferModule(model, criterion, lr=1e-2)
    )
    strategy: Any = "auto"
    if world_size > 1:
        strategy = (
            ModelParallelStrategy(data_parallel_size=world_size, tensor_parallel_size=1)
            if kind.startswith("fsdp")
            else DDPStrategy(static_graph=kind == "static")
        )
    phases = [lh.Phase(steps=steps, train_from=first, norm=norm) for first, steps in PHASES]
    trainer = trainer_for(
        folder,
        [lh.Phases(phases)],
        3 * accumulate,
        strategy=strategy,
        devices=world_size,
        use_distributed_sampler=False,
        accumulate_grad_batches=accumulate,
    )
    data = TensorDataset(X.double(), Y)
    # Lightning's own sampler would shuffle
    sampler = DistributedSampler(data, world_size, int(os.environ.get("LOCAL_RANK", 0)), shuffle=False)
    trainer.fit(task, DataLoader(data, 4 // world_size, sampler=sampler))
    assert trainer.global_step == 12
    return _weights(model)


def _difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    ("kind", "norm"), [("ddp", "eval"), ("ddp", "train"), ("fsdp", "train"), ("fsdp_parts", "eval")]
)
def test_ranks_agree_and_equal_a_single_process(tmp_path: Path, kind: str, norm: str, accumulate: int) -> None:
    ranks = run_processes(train, 2, tmp_path, tmp_path, kind, 2, accumulate, norm)
    alone = run_processes(train, 1, tmp_path, tmp_path, "ddp", 1, accumulate, norm)
    assert ranks is not None
    assert alone is not None
    assert _difference(ranks[0], ranks[1]) == 0
    assert _difference(ranks[0], alone[0]) < 1e-6
    torch.manual_seed(3)
    assert _difference(_weights(Net(batch_norm=False).double()), alone[0]) > 1e-3


class Stock(L.LightningModule):
    """A module that Lightning's own `BackboneFinetuning` can train."""

    def __init__(self) -> None:
        super().__init__()
        net = Net(batch_norm=False).double()
        self.backbone, self.head = net.body, net.head

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.head(self.backbone(batch[0])), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=1e-2)


def train_stock(folder: Path) -> dict[str, Tensor]:
    torch.manual_seed(3)
    task = Stock()
    callback = BackboneFinetuning(unfreeze_backbone_at_epoch=1, backbone_initial_lr=1e-2)
    trainer = trainer_for(folder, [callback], 3, strategy="ddp", devices=2)
    trainer.fit(task, DataLoader(TensorDataset(X.double(), Y), 2))
    return _weights(task)


def test_the_comparison_detects_ranks_that_diverge(tmp_path: Path) -> None:
    ranks = run_processes(train_stock, 2, tmp_path, tmp_path)
    assert ranks is not None
    assert _difference(ranks[0], ranks[1]) > 1e-4


def refused(folder: Path, kind: str) -> str:
    try:
        train(folder, kind, 2, 1, "eval")
    except ValueError as error:
        return str(error)
    return ""


def test_a_static_graph_is_refused(tmp_path: Path) -> None:
    messages = run_processes(refused, 2, tmp_path, tmp_path, "static")
    assert messages is not None
    assert all("without `static_graph`, as 4 phases" in message for message in messages)


def search(folder: Path, world_size: int, only_fit: bool) -> tuple[list[float], dict[str, Tensor]]:
    """Runs `lr_find` with a frozen body, unless `only_fit`, and fits afterwards."""
    torch.manual_seed(3)
    task = lh.TransferModule(Net(batch_norm=False).double(), nn.CrossEntropyLoss(), lr=1e-2)
    strategy = "ddp" if world_size > 1 else "auto"
    trainer = trainer_for(
        folder, [lh.FineTune()], 2, strategy=strategy, devices=world_size, use_distributed_sampler=False
    )
    data = TensorDataset(X.double(), Y)
    sampler = DistributedSampler(data, world_size, int(os.environ.get("LOCAL_RANK", 0)), shuffle=False)
    loader = DataLoader(data, 4 // world_size, sampler=sampler)
    losses = [] if only_fit else lh.lr_find(trainer, task, loader, num_steps=30).losses
    trainer.fit(task, loader)
    return losses, _weights(task)


def test_lr_find_agrees_across_ranks_and_restores_the_task(tmp_path: Path) -> None:
    ranks = run_processes(search, 2, tmp_path, tmp_path, 2, False)
    unsearched = run_processes(search, 2, tmp_path, tmp_path, 2, True)
    alone = run_processes(search, 1, tmp_path, tmp_path, 1, False)
    assert ranks is not None
    assert unsearched is not None
    assert alone is not None
    assert len(ranks[0][0]) > 20
    assert ranks[0][0] == ranks[1][0] == pytest.approx(alone[0][0], abs=1e-6)
    for rank in range(2):
        assert _difference(ranks[rank][1], unsearched[rank][1]) == 0
