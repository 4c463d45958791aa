"""Checkpoints hold plain values, as they are now, and load without the files that an encoder was built from."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_heads as lh
from tests.helpers import Net, X, Y, trainer_for

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TASKS: dict[str, Callable[..., lh.TransferModule]] = {
    "classes": lambda encoder, **given: lh.ImageClassifier(encoder, **{"num_classes": 2, **given}),
    "numbers": lh.ImageRegressor,
    "masks": lambda encoder, **given: lh.ImageSegmenter(encoder, **{"num_classes": 3, **given}),
    "restoration": lh.ImageRestorer,
    "embeddings": lh.ImageEmbedder,
    "pairs": lh.PairClassifier,
}
# Arguments of tasks with values of NumPy, of one task or of all.
RATES = [np.float64(0.1), np.float32(0.5), np.array([1e-4, 1e-2]), (np.float64(1e-4), np.float64(1e-2))]
NUMPY: dict[str, list[dict[str, Any]]] = {
    "classes": [
        {
            "num_classes": np.uint8(1) + np.int64(1),
            "label_smoothing": np.float64(0.1),
            "class_weights": np.array([1.0, 2.0]),
            "class_names": np.unique(["b", "a"]),
            "multilabel": np.bool_(False),
            "ps": np.array([0.25, 0.5]),
            "lin_ftrs": np.array([8]),
            "in_channels": np.int64(1),
            "image_size": np.array([64, 96]),
            "mean": np.array([0.5, 0.25, 0.5]),
            "std": [np.float64(0.5)] * 3,
            "num_groups": np.int64(3),
            "lr": RATES[0],
        },
        {
            "class_names": [np.str_("a"), np.str_("b")],
            "class_weights": [np.float64(1), np.float64(2)],
            "ps": np.float32(0.25),
            "image_size": np.int64(64),
            "lr": RATES[1],
        },
    ],
    "numbers": [
        {"num_outputs": np.int64(2), "y_range": np.array([0.0, 1.0]), "loss": np.str_("l1"), "lr": RATES[2]},
        {"y_range": (np.float64(0), np.float64(1)), "lr": RATES[3]},
    ],
    "masks": [
        {
            "num_classes": np.uint8(2) + np.int64(1),
            "ignore_index": np.int64(255),
            "loss": {np.str_("dice"): np.float64(0.5), "cross_entropy": np.int64(1)},
            "class_names": np.array(["a", "b", "c"]),
            "tile_size": np.array([64, 96]),
            "tile_overlap": np.float64(0.5),
            "max_width": np.int64(32),
            "lr": RATES[0],
        },
        {"tile_size": np.int64(64)},
    ],
    "restoration": [
        {
            "num_outputs": np.int64(3),
            "tile_size": (np.int64(64), np.int64(96)),
            "loss": {"l1": np.float64(0.5), "feature": np.float64(1)},
            "feature_encoder": "test_resnet",
            "feature_pretrained": np.bool_(False),
            "feature_layers": np.array([1, 2]),
            "feature_layer_weights": np.array([1.0, 2.0]),
            "style_size": np.int64(64),
            "style_weight": np.float64(2),
            "lr": RATES[0],
        }
    ],
    "embeddings": [{"embedding_size": np.int64(8), "margin": np.float64(0.5), "lr": RATES[0]}],
    "pairs": [{"label_smoothing": np.float64(0.1), "comparison": np.str_("all"), "lr": RATES[0]}],
}


def _build(kind: str, encoder: str = "test_resnet", **given: Any) -> lh.TransferModule:
    return TASKS[kind](encoder, pretrained=False, **given)


def _reload(task: lh.TransferModule, folder: Path, **given: Any) -> Any:
    """Saves a checkpoint, and loads it without running code from it."""
    trainer = trainer_for(folder, [])
    trainer.strategy.connect(task)
    trainer.save_checkpoint(folder / "task.ckpt")
    return type(task).load_from_checkpoint(folder / "task.ckpt", weights_only=True, **given)


def _plain(value: Any) -> Any:
    """Converts NumPy's values by json, which has no other types than Python's; tuples become lists."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    return json.loads(json.dumps(value, default=lambda each: each.tolist()))


@pytest.mark.parametrize(
    ("kind", "given"), [(kind, given) for kind, cases in NUMPY.items() for given in cases], ids=lambda value: str(value)
)
def test_a_checkpoint_with_values_of_numpy_loads(tmp_path: Path, kind: str, given: dict[str, Any]) -> None:
    task = _build(kind, **given)
    loaded = _reload(task, tmp_path)
    for values in (loaded.hparams, task.hparams, task.hparams_initial):
        assert {name: json.loads(json.dumps(values[name])) for name in given} == _plain(given)


def test_a_run_with_rates_and_phases_of_numpy_resumes(tmp_path: Path) -> None:
    class Task(lh.TransferModule):
        def __init__(self, lr: Any = 1e-3) -> None:
            super().__init__(Net(), nn.CrossEntropyLoss(), lr=lr)
            self.save_hyperparameters()

    def schedule() -> lh.FineTune:
        return lh.FineTune(np.int64(1), lr_mult=np.float64(50), pct_start=np.float64(0.5))

    loader = DataLoader(TensorDataset(X, Y), 4)
    trainer = trainer_for(tmp_path, [schedule()], 2)
    trainer.fit(Task(np.float64(0.1)), loader)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    trainer_for(tmp_path, [schedule()], 2).fit(Task(np.float64(0.1)), loader, ckpt_path=tmp_path / "run.ckpt")


def test_loggers_get_plain_values(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path)
    logger.log_hyperparams(_build("classes", lr=[np.float64(0.1), 0.2]).hparams_initial)
    logger.save()
    assert yaml.safe_load(Path(logger.log_dir, "hparams.yaml").read_text())["lr"] == [0.1, 0.2]


@pytest.mark.parametrize("kind", TASKS)
def test_a_rate_that_is_set_later_is_saved(tmp_path: Path, kind: str) -> None:
    task = _build(kind)
    task.lr = 0.5
    assert task.hparams["lr"] == _reload(task, tmp_path).lr == 0.5


@pytest.mark.parametrize("value", [(1e-4, 1e-2), [1e-4, 1e-3, 1e-2], *RATES], ids=str)
def test_rates_of_numpy_can_be_set_later(value: Any) -> None:
    class Task(lh.TransferModule):
        def __init__(self, lr: Any = 1e-3) -> None:
            super().__init__(Net(), nn.CrossEntropyLoss(), lr=lr)
            self.save_hyperparameters()

    task = Task()
    task.lr = value
    assert json.loads(json.dumps([task.lr, task.hparams["lr"]])) == [_plain(value)] * 2
    json.dumps([group["lr"] for group in task.configure_optimizers().param_groups])


@pytest.mark.parametrize("kind", ["classes", "masks"])
def test_names_that_are_set_later_are_saved(tmp_path: Path, kind: str) -> None:
    task: Any = _build(kind)
    names = np.array(["x", "y", "z"][: len(task.class_names)])
    task.class_names = names
    assert _reload(task, tmp_path).class_names == names.tolist()


def test_values_in_the_hyperparameters_are_saved_as_plain_ones(tmp_path: Path) -> None:
    task = _build("masks")
    task.hparams["ignore_index"] = np.int64(255)
    assert _reload(task, tmp_path).ignore_index == 255


def test_values_given_to_a_load_take_precedence(tmp_path: Path) -> None:
    task = _build("classes")
    task.lr = 0.5
    assert _reload(task, tmp_path, lr=0.25).lr == 0.25


def test_a_rate_that_is_no_hyperparameter_is_an_attribute_alone() -> None:
    class Task(lh.TransferModule):
        def __init__(self, rate: float) -> None:
            super().__init__(nn.Linear(1, 1), nn.MSELoss(), lr=rate)
            self.save_hyperparameters()

    task = Task(0.1)
    task.lr = 0.5
    assert task.lr == 0.5
    assert dict(task.hparams) == {"rate": 0.1}


def test_hyperparameters_of_a_data_module_are_saved_as_plain_ones(tmp_path: Path, class_folder: Path) -> None:
    class Data(lh.ImageFolderData):
        def __init__(self, root: Path, image_size: Any, batch_size: Any) -> None:
            super().__init__(root, image_size=image_size, batch_size=batch_size, num_workers=0)
            self.save_hyperparameters()

    trainer = trainer_for(tmp_path, [], 1, limit_train_batches=1)
    trainer.fit(_build("classes"), datamodule=Data(class_folder, np.int64(32), np.int64(4)))
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    data = Data.load_from_checkpoint(tmp_path / "run.ckpt", weights_only=True)
    assert (data.image_size, data.batch_size) == ((32, 32), 4)


MODEL = {
    "architecture": "test_vit",
    "model_args": {"depth": 4, "embed_dim": 32},
    "pretrained_cfg": {
        "input_size": [3, 64, 64],
        "interpolation": "bilinear",
        "mean": [0.25, 0.5, 0.25],
        "std": [0.25, 0.25, 0.25],
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    },
}


@pytest.fixture(params=["local-dir:", "hf-hub:", "hf_hub:"])
def model_name(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model's name in a folder, or in a cache of the hub that already has it, below `tmp_path / "models"`."""
    revision = 40 * "a"
    folder = tmp_path / "models"
    if request.param != "local-dir:":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "models"))
        folder = folder / "models--me--small/snapshots" / revision
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(MODEL))
    return f"local-dir:{folder}" if request.param == "local-dir:" else f"{request.param}me/small@{revision}"


def test_a_checkpoint_stands_alone(tmp_path: Path, model_name: str) -> None:
    task: Any = _build("classes", model_name).eval()
    assert task.hparams["encoder"] == model_name
    shutil.rmtree(tmp_path / "models")  # before the checkpoint is saved, as in a long run
    loaded = _reload(_reload(task, tmp_path), tmp_path)
    assert torch.equal(loaded.eval()(IMAGES), task(IMAGES))
    assert loaded.model.encoder.meta == task.model.encoder.meta
    assert loaded.model.encoder.meta.input_size == (64, 64)
    assert task.model.encoder.num_features == 2 * 32


def test_a_feature_encoder_stands_alone(tmp_path: Path, model_name: str) -> None:
    features = {"feature_encoder": model_name, "feature_pretrained": False, "feature_layers": [1, 2, 3]}
    task = _build("restoration", loss="feature", **features)
    shutil.rmtree(tmp_path / "models")
    loaded = _reload(task, tmp_path)
    assert torch.equal(loaded.criterion(IMAGES, IMAGES.flip(0)), task.criterion(IMAGES, IMAGES.flip(0)))
