from pathlib import Path

import lightning as L
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn
from torch.utils.data import DataLoader, TensorDataset

import lightning_heads as lh
from tests.helpers import Net, X, Y, trainer_for


def test_equals_torchs_average_with_a_ramp_of_the_decay(tmp_path: Path) -> None:
    def average(averaged: Tensor, value: Tensor, updates: Tensor) -> Tensor:
        decay = min(0.5, float((1 + updates) / (10 + updates)))
        return get_ema_avg_fn(decay)(averaged, value, updates)

    task = lh.TransferModule(Net(), nn.CrossEntropyLoss(), lr=1e-2)
    torchs: list[AveragedModel] = []

    class Average(L.Callback):
        def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            torchs.append(AveragedModel(pl_module, avg_fn=average))

        def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: object) -> None:
            torchs[0].update_parameters(pl_module)

    trainer_for(tmp_path, [Average(), lh.EMA(0.5)]).fit(task, DataLoader(TensorDataset(X, Y), 4))
    for ours, theirs in zip(task.parameters(), torchs[0].module.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_run_of_ten_steps_is_as_good_as_without(tmp_path: Path) -> None:
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    accuracies = []
    for callbacks in ([], [lh.EMA(0.999)]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        trainer = trainer_for(tmp_path, callbacks, 1)
        trainer.fit(
            lh.TransferModule(model, nn.CrossEntropyLoss(), lr=1e-2),
            DataLoader(TensorDataset(x, y), 180),
        )
        assert trainer.global_step == 10
        with torch.no_grad():
            accuracies.append(float((model(x).argmax(dim=1) == y).float().mean()))
    assert accuracies[0] > 0.8
    assert accuracies[1] > accuracies[0] - 0.02


def test_averages_of_frozen_tensors_are_bitwise_equal_to_them(tmp_path: Path) -> None:
    task = lh.TransferModule(Net(), nn.CrossEntropyLoss(), lr=1e-1)
    task.model(X)  # statistics and counters that are not 0
    before = {name: value.clone() for name, value in task.model.body.state_dict().items()}
    schedule = lh.Phases([lh.Phase(train_from=-1, norm="eval")])
    trainer = trainer_for(tmp_path, [schedule, lh.EMA(0.9)], 25)
    trainer.fit(task, DataLoader(TensorDataset(X, Y), 4))
    assert trainer.global_step == 100
    for name, value in task.model.body.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert int(task.model.head[0].num_batches_tracked) == 101


def test_an_impossible_decay_is_refused() -> None:
    with pytest.raises(ValueError, match="`decay`"):
        lh.EMA(1.0)


def test_one_callback_can_be_used_by_two_trainers(tmp_path: Path) -> None:
    average = lh.EMA(0.5)
    for _ in range(2):
        task = lh.TransferModule(Net(), nn.CrossEntropyLoss(), lr=1e-1)
        before = task.model.head[2].weight.detach().clone()
        trainer_for(tmp_path, [average], 2).fit(task, DataLoader(TensorDataset(X, Y), 4))
        assert not torch.equal(task.model.head[2].weight, before)


def test_a_resumed_average_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    class Stop(L.Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            if trainer.current_epoch == 1:
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    ends = []
    for path in (None, tmp_path / "half.ckpt"):
        torch.manual_seed(0)
        task = lh.TransferModule(Net(dropout=0.5), nn.CrossEntropyLoss(), lr=1e-1)
        trainer = trainer_for(tmp_path, [lh.FineTune(), lh.EMA(0.9), Stop()], 4)
        trainer.fit(task, DataLoader(TensorDataset(X, Y), 4, shuffle=True), ckpt_path=path, weights_only=True)
        ends.append({name: value.clone() for name, value in task.state_dict().items()})
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
