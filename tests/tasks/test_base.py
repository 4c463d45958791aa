import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric
from torchmetrics.regression import MeanAbsoluteError

import lightning_heads as lh
from lightning_heads.losses import CrossEntropyLoss
from tests.helpers import trainer_for


class _Sum(nn.Module):
    """Adds the outputs of a linear layer for two inputs."""

    num_inputs = 2

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.linear(a) + self.linear(b)


def _trainer(folder: Path, **settings: object) -> L.Trainer:
    options = {"max_epochs": 2, "logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
    return L.Trainer(default_root_dir=folder, enable_model_summary=False, **{**options, **settings})


def test_trains_any_model_whose_batch_is_inputs_then_target(tmp_path: Path) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(64, 3), torch.randn(64, 3)
    target = (a + b) @ torch.tensor([[1.0], [2.0], [-1.0]])
    loader = DataLoader(TensorDataset(a, b, target), 16)
    task = lh.TransferModule(_Sum(), nn.MSELoss(), {"mean_absolute_error": MeanAbsoluteError()}, lr=0.1)
    trainer = _trainer(tmp_path, max_epochs=30, enable_checkpointing=False)
    trainer.fit(task, loader, loader)
    assert trainer.callback_metrics["val_loss"] < 0.01
    assert {"train_loss", "val_loss", "val_mean_absolute_error"} <= set(trainer.callback_metrics)
    assert trainer.test(task, loader, verbose=False)[0]["test_mean_absolute_error"] < 0.1
    predictions = torch.cat(trainer.predict(task, DataLoader(TensorDataset(a, b), 16)))
    torch.testing.assert_close(predictions, target, atol=0.5, rtol=0)


def test_equals_a_plain_training_loop(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(32, 4), torch.randn(32, 1)
    model, twin = nn.Linear(4, 1), nn.Linear(4, 1)
    twin.load_state_dict(model.state_dict())
    loader = DataLoader(TensorDataset(x, y), 8)
    _trainer(tmp_path, enable_checkpointing=False).fit(lh.TransferModule(model, nn.MSELoss(), lr=0.01), loader)
    groups = [{"params": [twin.weight]}, {"params": [twin.bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.99), eps=1e-5, weight_decay=0.01)
    for _ in range(2):
        for inputs, target in loader:
            optimizer.zero_grad()
            nn.functional.mse_loss(twin(inputs), target).backward()
            optimizer.step()
    torch.testing.assert_close(model.weight, twin.weight)
    torch.testing.assert_close(model.bias, twin.bias)


@pytest.mark.parametrize(
    "criterion",
    [
        nn.CrossEntropyLoss(torch.tensor([1.0, 4]), ignore_index=9),
        CrossEntropyLoss(class_weights=[1, 4], ignore_index=9),
    ],
    ids=["torch", "ours"],
)
def test_the_loss_of_a_data_set_does_not_depend_on_the_batch_size(tmp_path: Path, criterion: nn.Module) -> None:
    outputs, target = torch.randn(8, 2, 3, 4), torch.randint(2, (8, 3, 4))
    target[1:7], target[7, :2] = 9, 9
    expected = criterion(outputs, target).item()
    task = lh.TransferModule(nn.Conv2d(2, 2, 1), criterion)
    nn.init.dirac_(task.model.weight)
    nn.init.zeros_(task.model.bias)
    for module in (task, lh.TestTimeAugmentation(task, "flips")):
        for size in (1, 3, 8):
            loader = DataLoader(TensorDataset(outputs, target), size)
            trainer = _trainer(tmp_path)
            assert trainer.validate(module, loader, verbose=False)[0]["val_loss"] == pytest.approx(expected, rel=1e-5)
            assert trainer.test(module, loader, verbose=False)[0]["test_loss"] == pytest.approx(expected, rel=1e-5)


def test_callbacks_monitor_the_loss_of_the_data_set(tmp_path: Path) -> None:
    x, y = torch.randn(6, 2), torch.tensor([0, 0, 1, 0, 0, 0])
    task = lh.TransferModule(nn.Linear(2, 2), nn.CrossEntropyLoss(torch.tensor([1.0, 9.0])), lr=1e-12)
    checkpoint = ModelCheckpoint(tmp_path, monitor="val_loss")
    trainer = _trainer(tmp_path, callbacks=[checkpoint], max_epochs=1)
    trainer.fit(task, DataLoader(TensorDataset(x, y), 3), DataLoader(TensorDataset(x, y), 1))
    expected = task.criterion(task(x), y).item()
    assert checkpoint.best_model_score == pytest.approx(expected)
    assert trainer.callback_metrics["val_loss"] == pytest.approx(expected)


def _task(kind: str) -> tuple[lh.TransferModule, list[Tensor]]:
    """Returns a small task and a data set of it."""
    images, classes = torch.rand(4, 3, 32, 32), torch.tensor([0, 1, 0, 1])
    data: dict[str, tuple[type[lh.TransferModule], list[Tensor], dict[str, Any]]] = {
        "classifier": (lh.ImageClassifier, [images, classes], {"num_classes": 2}),
        "labels": (lh.ImageClassifier, [images, torch.eye(2)[classes]], {"num_classes": 2, "multilabel": True}),
        "regressor": (lh.ImageRegressor, [images, torch.rand(4, 1)], {}),
        "embedder": (lh.ImageEmbedder, [images, classes], {}),
        "pairs": (lh.PairClassifier, [images, images, classes], {}),
        "segmenter": (lh.ImageSegmenter, [images, classes[:, None, None].expand(4, 32, 32)], {"num_classes": 2}),
        "restorer": (lh.ImageRestorer, [images, images], {}),
    }
    task, tensors, settings = data[kind]
    return task("test_resnet", pretrained=False, **settings), tensors


@pytest.mark.parametrize("kind", ["classifier", "labels", "regressor", "embedder", "pairs", "segmenter", "restorer"])
def test_a_task_whose_outputs_are_nan_has_no_score(tmp_path: Path, kind: str) -> None:
    task, tensors = _task(kind)
    nn.init.constant_(task.param_groups()[-1][-1], torch.nan)
    logged = _trainer(tmp_path).validate(task, DataLoader(TensorDataset(*tensors), 2), verbose=False)[0]
    assert len(logged) > 2
    assert {name: value for name, value in logged.items() if not math.isnan(value) and name != "val_loss"} == {}


def test_optimizer_and_scheduler_can_be_chosen(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    task = lh.TransferModule(
        model,
        nn.MSELoss(),
        lr=0.5,
        optimizer=lambda groups: torch.optim.SGD(groups, lr=1.0),
        lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.1),
    )
    loader = DataLoader(TensorDataset(torch.randn(4, 2), torch.randn(4, 1)), 2)
    trainer = _trainer(tmp_path, enable_checkpointing=False)
    trainer.fit(task, loader)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.005)


def test_a_batch_without_target_is_refused(tmp_path: Path) -> None:
    task = lh.TransferModule(nn.Linear(2, 1), nn.MSELoss())
    with pytest.raises(ValueError, match="1 inputs, then the target, but there is no target"):
        _trainer(tmp_path, enable_checkpointing=False).fit(task, DataLoader(torch.randn(4, 2), 2))


def test_parameters_of_the_criterion_train_with_the_head(tmp_path: Path) -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.fixed = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1), requires_grad=False)

        def forward(self, outputs: Tensor, target: Tensor) -> Tensor:
            return (outputs - target).square().mean() * self.scale.square() * self.fixed

    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    task = lh.TransferModule(
        model, Weighted(), splitter=lambda m: [[*m[0].parameters()], [*m[1].parameters()]], lr=(0.01, 0.1)
    )
    groups = task.param_groups()
    assert [len(group) for group in groups] == [2, 3]
    lh.freeze(task)
    assert [p.requires_grad for group in groups for p in group] == [False] * 2 + [True] * 3
    _trainer(tmp_path, enable_checkpointing=False).fit(
        task, DataLoader(TensorDataset(torch.randn(8, 3), torch.ones(8, 1)), 4)
    )
    assert task.criterion.scale.item() != 1


def test_a_parameter_outside_the_model_is_named() -> None:
    class Odd(lh.TransferModule):
        def __init__(self) -> None:
            super().__init__(nn.Linear(2, 1), nn.MSELoss())
            self.extra = nn.Linear(2, 2)

    with pytest.raises(ValueError, match=r"2 are in none: extra.weight, extra.bias"):
        Odd().configure_optimizers()


def test_parameters_of_a_metric_are_not_optimized() -> None:
    class Perceptual(MeanMetric):
        def __init__(self) -> None:
            super().__init__()
            self.network = nn.Linear(2, 2)

    task = lh.TransferModule(nn.Linear(2, 1), nn.MSELoss(), {"network": Perceptual()})
    assert len(task.configure_optimizers().param_groups) == 2


class OwnTask(lh.TransferModule):
    """A task of a user's own."""


@pytest.mark.parametrize(
    "task", [*lh.TransferModule.__subclasses__(), lh.TransferModule], ids=lambda each: each.__name__
)
def test_checkpoints_name_tasks_by_their_public_path(task: type[lh.TransferModule]) -> None:
    checkpoint: dict[str, object] = {}
    lh.TransferModule.on_save_checkpoint(task.__new__(task), checkpoint)
    if task.__module__.startswith("lightning_heads."):
        assert checkpoint["class_path"] == f"lightning_heads.{task.__name__}"
        assert getattr(lh, task.__name__) is task
    else:
        assert checkpoint["class_path"] == f"{task.__module__}.{task.__qualname__}"


def test_a_checkpoint_names_a_users_task_by_its_own_path() -> None:
    checkpoint: dict[str, object] = {}
    OwnTask(nn.Linear(1, 1), nn.MSELoss()).on_save_checkpoint(checkpoint)
    assert checkpoint["class_path"] == f"{__name__}.OwnTask"


def test_hyperparameters_leave_out_functions_and_what_the_class_lacks() -> None:
    task = lh.ImageRegressor("test_resnet", 2, pretrained=False, optimizer=torch.optim.SGD, lr=0.1)
    assert "optimizer" not in task.hparams
    assert task.hparams["lr"] == 0.1
    assert "architecture" not in task.hparams

    class Named(lh.TransferModule):
        def __init__(self, name: str, rate: float) -> None:
            super().__init__(nn.Linear(1, 1), nn.MSELoss(), lr=rate)
            self.save_hyperparameters(ignore="rate")

    assert dict(Named("x", 0.1).hparams) == {"name": "x"}


@pytest.mark.parametrize("stages", [("validate", "fit"), ("fit", "validate", "fit"), ("test", "fit", "test")])
def test_evaluation_and_training_may_follow_each_other(tmp_path: Path, stages: tuple[str, ...]) -> None:
    task = lh.ImageClassifier("test_resnet", 2, pretrained=False)
    data = DataLoader(TensorDataset(torch.rand(4, 3, 32, 32), torch.arange(4) % 2), 2)
    for stage in stages:
        trainer = trainer_for(tmp_path, [], 1)
        trainer.fit(task, data, data) if stage == "fit" else getattr(trainer, stage)(task, data, verbose=False)
