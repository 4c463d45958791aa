"""Compares runs that are killed and resumed with an uninterrupted run."""

import os
import random
import signal
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_heads as lh
from lightning_heads.data.loading.seeded_loader import SeededLoader
from tests.helpers import Net, X, Y, run_processes, trainer_for

STEPS = 40  # ten epochs of four steps; the body is frozen in the first three


class Kill(L.Callback):
    """Kills its process in the middle of a step."""

    def __init__(self, step: int, rank: int) -> None:
        self.step, self.rank = step, rank

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            os.kill(os.getpid(), signal.SIGKILL)


def train(folder: Path, world_size: int, kill_at: int | None) -> dict[str, Tensor]:
    torch.manual_seed(7)
    task = lh.TransferModule(Net(dropout=0.5), nn.CrossEntropyLoss(), lr=1e-2)
    data = TensorDataset(X, Y)
    checkpoint = ModelCheckpoint(folder, filename="run", every_n_train_steps=1, enable_version_counter=False)
    kill = [] if kill_at is None else [Kill(kill_at, kill_at % world_size)]
    trainer = trainer_for(
        folder,
        [lh.FineTune(3), *kill, checkpoint],
        STEPS // 4,
        devices=world_size,
        strategy="ddp" if world_size > 1 else "auto",
        enable_checkpointing=True,
    )
    path = folder / "run.ckpt"
    trainer.fit(
        task,
        SeededLoader(data, 4 // world_size, seed=1, num_replicas=world_size, rank=trainer.global_rank),
        DataLoader(data, 8),
        ckpt_path=path if path.exists() else None,
        weights_only=True,
    )
    assert trainer.global_step == STEPS
    return {name: value.clone() for name, value in task.state_dict().items()}


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_run_killed_at_twenty_steps_equals_an_uninterrupted_one(tmp_path: Path, world_size: int) -> None:
    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    for folder in (uninterrupted, killed):
        folder.mkdir()
    expected = run_processes(train, world_size, uninterrupted, uninterrupted, world_size, None)
    steps = sorted(random.Random(0).sample(range(1, STEPS), 20))
    assert min(steps) < 12 < max(steps)
    for step in steps:
        assert run_processes(train, world_size, killed, killed, world_size, step) is None
    ended = run_processes(train, world_size, killed, killed, world_size, None)
    assert expected is not None
    assert ended is not None
    for rank in range(world_size):
        for name, value in expected[rank].items():
            assert torch.equal(value, ended[rank][name]), name


def train_epochs(folder: Path, stop_after: int | None, resume: bool, **plan: Any) -> dict[str, Tensor]:
    """Trains with torch's own loader, and checkpoints at the end of epochs."""
    torch.manual_seed(7)
    task = lh.TransferModule(Net(dropout=0.5), nn.CrossEntropyLoss(), lr=plan.get("lr", 1e-2))

    class Stop(L.Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            if trainer.current_epoch + 1 == stop_after:
                trainer.save_checkpoint(folder / "epoch.ckpt")
                trainer.should_stop = True

    callback = lh.FineTune(plan.get("frozen", 2), allow_new_plan=plan.get("allow_new_plan", False))
    trainer = trainer_for(folder, [callback, Stop()], plan.get("epochs", 5))
    data = TensorDataset(X, Y)
    path = folder / "epoch.ckpt" if resume else None
    trainer.fit(task, DataLoader(data, 4, shuffle=True), DataLoader(data, 8), ckpt_path=path, weights_only=True)
    return {name: value.clone() for name, value in task.state_dict().items()}


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_run_resumed_between_epochs_is_exact_with_any_loader(tmp_path: Path, epoch: int) -> None:
    expected = train_epochs(tmp_path, None, False)
    train_epochs(tmp_path, epoch, False)
    resumed = train_epochs(tmp_path, None, True)
    for name, value in expected.items():
        assert torch.equal(value, resumed[name]), name


@pytest.mark.parametrize("change", [{"epochs": 7}, {"frozen": 1}, {"lr": 1e-3}])
def test_a_changed_schedule_needs_allow_new_plan(tmp_path: Path, change: dict[str, Any]) -> None:
    train_epochs(tmp_path, 2, False)
    with pytest.raises(
        ValueError, match=r"run began with, but phase . was steps .* and is steps .*`allow_new_plan=True` to FineTune"
    ):
        train_epochs(tmp_path, None, True, **change)
    train_epochs(tmp_path, None, True, **change, allow_new_plan=True)


@pytest.mark.parametrize("schedule", [lh.OneCycle(), lh.Phases([lh.Phase(steps=8, train_from=-1), lh.Phase()])])
def test_a_schedule_of_another_kind_is_an_error(tmp_path: Path, schedule: L.Callback) -> None:
    train_epochs(tmp_path, 2, False)
    task = lh.TransferModule(Net(dropout=0.5), nn.CrossEntropyLoss(), lr=1e-2)
    trainer = trainer_for(tmp_path, [schedule], 5)
    with pytest.raises(ValueError, match="phases that the run began with"):
        trainer.fit(task, DataLoader(TensorDataset(X, Y), 4), ckpt_path=tmp_path / "epoch.ckpt", weights_only=True)


def test_parameter_groups_that_differ_from_the_checkpoint_are_refused(tmp_path: Path) -> None:
    train_epochs(tmp_path, 2, False)
    task = lh.TransferModule(
        Net(), nn.CrossEntropyLoss(), lr=1e-2, splitter=lambda model: [*reversed(model.param_groups())]
    )
    with pytest.raises(ValueError, match=r"group 0/decay has model.head.2.weight where .* has model.body.0.0.weight"):
        trainer_for(tmp_path, [lh.FineTune(2)], 5).fit(
            task, DataLoader(TensorDataset(X, Y), 4), ckpt_path=tmp_path / "epoch.ckpt", weights_only=True
        )


def test_training_does_not_depend_on_the_validation_interval(tmp_path: Path) -> None:
    data = TensorDataset(X, Y)
    ends = []
    for often in (1.0, 0.25, 0.0):
        torch.manual_seed(7)
        task = lh.TransferModule(Net(dropout=0.5), nn.CrossEntropyLoss(), lr=1e-2)
        trainer = trainer_for(
            tmp_path,
            [],
            2,
            val_check_interval=often or 1.0,
            limit_val_batches=1.0 if often else 0,
            num_sanity_val_steps=0,
        )
        trainer.fit(task, DataLoader(data, 4, shuffle=True), DataLoader(data, 8))
        ends.append(task.model.head[2].weight.detach().clone())
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


@pytest.mark.parametrize("step", [2, 5])
def test_a_checkpoint_saved_on_an_exception_is_exact(tmp_path: Path, step: int) -> None:
    class Fail(lh.TransferModule):
        fails = True

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            if self.trainer.global_step == step and self.fails:
                raise RuntimeError("out of memory")
            return super().training_step(batch, batch_idx)

    class Save(L.Callback):
        def on_exception(self, trainer: L.Trainer, *args: Any) -> None:
            trainer.save_checkpoint(tmp_path / "stopped.ckpt")

    def run(fails: bool, path: Path | None) -> dict[str, Tensor]:
        torch.manual_seed(7)
        task = Fail(Net(dropout=0.5), nn.CrossEntropyLoss(), lr=1e-2)
        task.fails = fails
        trainer = trainer_for(tmp_path, [lh.FineTune(), Save()], 3)
        trainer.fit(task, SeededLoader(TensorDataset(X, Y), 4, seed=1), ckpt_path=path, weights_only=True)
        return {name: value.clone() for name, value in task.state_dict().items()}

    with pytest.raises(RuntimeError, match="out of memory"):
        run(True, None)
    resumed = run(False, tmp_path / "stopped.ckpt")
    expected = run(False, None)
    assert all(torch.equal(value, resumed[name]) for name, value in expected.items())


def test_a_checkpoint_within_a_step_warns(tmp_path: Path) -> None:
    class Save(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
            if trainer.fit_loop.batch_idx == 0:
                trainer.save_checkpoint(tmp_path / "early.ckpt")

    task = lh.TransferModule(Net(), nn.CrossEntropyLoss())
    with pytest.warns(UserWarning, match="after 1 of 2 batches of a step lacks their gradients"):
        trainer_for(tmp_path, [Save()], 1, accumulate_grad_batches=2).fit(task, DataLoader(TensorDataset(X, Y), 4))


@pytest.mark.parametrize("reload", [0, 1])
def test_data_modules_resume_exactly(tmp_path: Path, class_folder: Path, reload: int) -> None:
    class Save(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    def run(path: Path | None) -> dict[str, Tensor]:
        torch.manual_seed(3)
        data = lh.ImageFolderData(class_folder, image_size=32, batch_size=6, num_workers=0)
        task = lh.ImageClassifier("test_resnet", 2, pretrained=False, lr=1e-3)
        trainer = trainer_for(tmp_path, [lh.FineTune(), Save()], 3, reload_dataloaders_every_n_epochs=reload)
        trainer.fit(task, data, ckpt_path=path, weights_only=True)
        return {name: value.clone() for name, value in task.state_dict().items()}

    expected = run(None)
    for step in (2, 3, 4, 6):
        checkpoint = tmp_path / f"{step}.ckpt"
        resumed = run(checkpoint)
        assert all(torch.equal(value, resumed[name]) for name, value in expected.items()), step
