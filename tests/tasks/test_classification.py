from pathlib import Path

import lightning as L
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_heads as lh


def _trainer(folder: Path, **settings: object) -> L.Trainer:
    options = {"max_epochs": 1, "logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
    return L.Trainer(default_root_dir=folder, enable_model_summary=False, **{**options, **settings})


def _loader(targets: torch.Tensor, size: int = 32) -> DataLoader:
    return DataLoader(TensorDataset(torch.rand(len(targets), 3, size, size), targets), 4)


def test_script_of_ten_lines_learns(class_folder: Path, tmp_path: Path) -> None:
    L.seed_everything(1, verbose=False)
    data = lh.ImageFolderData(class_folder, image_size=32, batch_size=8, num_workers=0)
    task = lh.ImageClassifier("test_resnet", num_classes=data.num_classes, pretrained=False, lr=3e-3)
    trainer = _trainer(tmp_path, max_epochs=16, callbacks=[lh.OneCycle()])
    trainer.fit(task, data)
    assert trainer.callback_metrics["val_accuracy"] == 1.0
    assert {"val_loss", "val_f1_score", "train_loss"} <= set(trainer.callback_metrics)


def test_subclass_overrides_the_loss(class_folder: Path, tmp_path: Path) -> None:
    class Focal(nn.Module):
        def forward(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            loss = nn.functional.cross_entropy(outputs, target, reduction="none")
            return ((1 - (-loss).exp()) ** 2 * loss).mean()

    class FocalClassifier(lh.ImageClassifier):
        def __init__(self, encoder: str, num_classes: int) -> None:
            super().__init__(encoder, num_classes, pretrained=False)
            self.criterion = Focal()

    task = FocalClassifier("test_resnet", 2)
    data = lh.ImageFolderData(class_folder, image_size=32, batch_size=8, num_workers=0)
    _trainer(tmp_path, enable_checkpointing=False).fit(task, data)
    logged = _trainer(tmp_path).validate(task, data, verbose=False)[0]["val_loss"]
    images, target = next(iter(data.val_dataloader()))
    with torch.no_grad():
        expected = Focal()(task.eval()(images), target)
    assert logged == pytest.approx(expected.item(), rel=1e-4)
    assert logged != pytest.approx(nn.functional.cross_entropy(task(images), target).item(), rel=1e-2)


@pytest.mark.parametrize("kind", ["classifier", "multilabel", "regressor"])
def test_checkpoint_loads_without_arguments_and_gives_equal_outputs(tmp_path: Path, kind: str) -> None:
    weights = tmp_path / "weights.pth"
    import timm

    torch.save(timm.create_model("test_resnet", pretrained=False).state_dict(), weights)
    if kind == "regressor":
        task: lh.TransferModule = lh.ImageRegressor("test_resnet", 2, y_range=(0, 3), weights=weights)
        loader = _loader(torch.rand(8, 2))
    elif kind == "multilabel":
        task = lh.ImageClassifier("test_resnet", 2, multilabel=True, weights=weights, class_names=["sun", "sea"])
        loader = _loader(torch.tensor([[0.0, 1.0]] * 8))
    else:
        task = lh.ImageClassifier("test_resnet", 2, weights=weights, class_names=["sun", "sea"], lr=(1e-4, 1e-3))
        loader = _loader(torch.tensor([0, 1] * 4))
    trainer = _trainer(tmp_path)
    trainer.fit(task, loader)
    path = trainer.checkpoint_callback.best_model_path
    weights.unlink()  # a checkpoint must load without the file of pretrained weights
    loaded = type(task).load_from_checkpoint(path, weights_only=True)
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(loaded.eval()(x), task.eval()(x), atol=0, rtol=0)
    if kind != "regressor":
        assert loaded.class_names == ["sun", "sea"]
    assert task.hparams["weights"] == str(weights)


def test_metrics_equal_scikit_learns(tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = lh.ImageClassifier("test_resnet", 3, pretrained=False)
    targets = torch.randint(3, (24,))
    loader = _loader(targets)
    trainer = _trainer(tmp_path)
    logged = trainer.test(task, loader, verbose=False)[0]
    predictions = torch.cat(trainer.predict(task, loader))
    classes = predictions.argmax(1)
    assert logged["test_accuracy"] == pytest.approx(accuracy_score(targets, classes))
    assert logged["test_f1_score"] == pytest.approx(f1_score(targets, classes, average="macro", zero_division=0))


def test_multilabel_predictions_are_independent_probabilities(tmp_path: Path) -> None:
    task = lh.ImageClassifier("test_resnet", 3, multilabel=True, label_smoothing=0.1, pretrained=False).eval()
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(task.predict_step(x, 0), task(x).sigmoid())
    target = torch.tensor([[1.0, 0, 0], [0, 1, 1]])
    expected = nn.functional.binary_cross_entropy_with_logits(task(x), target * 0.9 + 0.05)
    torch.testing.assert_close(task.criterion(task(x), target), expected)


def test_class_probabilities_are_targets_too(tmp_path: Path) -> None:
    task = lh.ImageClassifier("test_resnet", 2, pretrained=False)
    soft = torch.tensor([[0.9, 0.1], [0.3, 0.7]] * 4)
    logged = _trainer(tmp_path).test(task, _loader(soft), verbose=False)[0]
    assert 0 <= logged["test_accuracy"] <= 1
    assert task.metric_target(soft)[:2].tolist() == [0, 1]


def test_class_weights_and_label_smoothing_are_those_of_the_loss() -> None:
    task = lh.ImageClassifier("test_resnet", 2, pretrained=False, class_weights=[1.0, 3.0], label_smoothing=0.2)
    outputs, target = torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
    expected = nn.functional.cross_entropy(outputs, target, torch.tensor([1.0, 3.0]), label_smoothing=0.2)
    torch.testing.assert_close(task.criterion(outputs, target), expected)


def test_regressor_stays_in_its_range(tmp_path: Path) -> None:
    task = lh.ImageRegressor("test_resnet", 1, y_range=(2, 4), loss="huber", pretrained=False)
    trainer = _trainer(tmp_path, enable_checkpointing=False)
    loader = _loader(torch.rand(8, 1) + 2.5)
    trainer.fit(task, loader, loader)
    assert {"val_mean_absolute_error", "val_mean_squared_error"} <= set(trainer.callback_metrics)
    predictions = torch.cat(trainer.predict(task, loader))
    assert ((predictions > 2) & (predictions < 4)).all()


def test_classes_are_checked_against_the_data(class_folder: Path, tmp_path: Path) -> None:
    data = lh.ImageFolderData(class_folder, image_size=32, batch_size=8, num_workers=0)
    unnamed = lh.ImageClassifier("test_resnet", 2, pretrained=False)
    trainer = _trainer(tmp_path)
    trainer.fit(unnamed, data)
    loaded = lh.ImageClassifier.load_from_checkpoint(trainer.checkpoint_callback.best_model_path)
    assert loaded.class_names == ["bright", "dark"]
    (class_folder / "dark").rename(class_folder / "night")
    renamed = lh.ImageFolderData(class_folder, image_size=32, batch_size=8, num_workers=0)
    with pytest.raises(ValueError, match=r"classes \['bright', 'dark'\], but got \['bright', 'night'\]"):
        _trainer(tmp_path).validate(loaded, renamed)
    with pytest.raises(ValueError, match="data with 3 classes, as the model has, but got 2"):
        _trainer(tmp_path).validate(lh.ImageClassifier("test_resnet", 3, pretrained=False), data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 1}, "`num_classes` to be at least 2, but got 1"),
        ({"num_classes": 2, "class_names": ["a"]}, "`class_names` to have 2 entries, one a class, but got 1"),
        ({"num_classes": 2, "class_weights": [1.0, 2.0, 3.0]}, "`class_weights` to have 2 entries"),
        ({"num_classes": 2, "ps": [0.1, 0.2, 0.3]}, "`ps` to have 2 entries"),
        ({"num_classes": 2, "encoder": "resnet5O"}, "did you mean"),
    ],
)
def test_wrong_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lh.ImageClassifier(**{"encoder": "test_resnet", "pretrained": False, **settings})


def test_unknown_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="`loss` to be mse, l1, huber, but got 'mae'"):
        lh.ImageRegressor("test_resnet", loss="mae", pretrained=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("task", "target", "message"),
    [
        ("classes", torch.tensor([[1.0, 1.0], [0.0, 1.0]]), "sum to 1, but got other sums; is the task `multilabel`"),
        ("labels", torch.tensor([0, 1]), r"`multilabel` targets of \(2, 2\), but got \(2,\)"),
        ("numbers", torch.tensor([0.5, 1.0]), r"targets of \(2, 1\), but got \(2,\)"),
    ],
)
def test_targets_of_another_kind_are_refused(tmp_path: Path, task: str, target: torch.Tensor, message: str) -> None:
    module: lh.TransferModule
    if task == "numbers":
        module = lh.ImageRegressor("test_resnet", pretrained=False)
    else:
        module = lh.ImageClassifier("test_resnet", 2, multilabel=task == "labels", pretrained=False)
    with pytest.raises(ValueError, match=message):
        _trainer(tmp_path, enable_checkpointing=False).fit(module, _loader(target))


def test_class_weights_are_not_in_the_state_dict_and_may_be_integers() -> None:
    task = lh.ImageClassifier("test_resnet", 2, pretrained=False, class_weights=[1, 3])
    assert not [name for name in task.state_dict() if name.startswith("criterion")]
    assert task.criterion(torch.randn(2, 2), torch.tensor([0, 1])).isfinite()
