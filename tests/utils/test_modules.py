"""Modules that `torch.compile` wraps are treated as the modules that they wrap."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_heads as lh
from lightning_heads.data.features.fingerprint import fingerprint
from lightning_heads.heads.pooled import split_pooling
from lightning_heads.inference.tta import TestTimeAugmentation
from lightning_heads.utils.modules import uncompiled
from tests.helpers import trainer_for

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 1, 0, 1])


@pytest.fixture(autouse=True)
def _untraced() -> Iterator[None]:
    """Compiled modules run without compilation, which takes long."""
    with torch.compiler.set_stance("force_eager"):
        yield


def _compiled(module: nn.Module) -> Any:
    return torch.compile(module, backend="eager")


def _model() -> lh.ImageModel:
    body = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.BatchNorm2d(4), nn.Conv2d(4, 8, 1), nn.AdaptiveAvgPool2d(1))
    return lh.ImageModel(lh.Encoder(body, image_size=32), 2, lin_ftrs=[])


class Task(lh.TransferModule):
    class_names = ("a", "b")

    def __init__(self) -> None:
        super().__init__(_model(), nn.CrossEntropyLoss())


def _loader(*tensors: torch.Tensor) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*tensors), 2)


def test_returns_the_wrapped_module_and_others_unchanged() -> None:
    module = nn.Linear(1, 1)
    assert uncompiled(_compiled(module)) is module
    assert uncompiled(module) is module


@pytest.mark.parametrize("name", ["timm", "torchvision", "own"])
def test_an_encoder_is_built_from_a_compiled_model(name: str) -> None:
    model: nn.Module = {
        "timm": lambda: timm.create_model("test_resnet"),
        "torchvision": lambda: torchvision.models.resnet18(),
        "own": lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1)),
    }[name]()
    twin = copy.deepcopy(model)
    assert lh.model_meta(_compiled(model), image_size=64) == lh.model_meta(twin, image_size=64)
    body = lh.create_body(_compiled(copy.deepcopy(model)), in_channels=4)
    assert [n for n, _ in body.named_parameters()] == [
        n for n, _ in lh.create_body(copy.deepcopy(model), in_channels=4).named_parameters()
    ]
    encoder, expected = (lh.Encoder(each, image_size=64).eval() for each in (_compiled(model), twin))
    assert torch.equal(encoder(IMAGES), expected(IMAGES))
    assert [*encoder.state_dict()] == [*expected.state_dict()]


def test_groups_of_a_compiled_sequence_are_its_own() -> None:
    encoder = _model().encoder
    model = nn.Sequential(encoder, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(encoder.num_features, 2))
    sizes = [len(group) for group in lh.param_groups(model)]
    assert len(sizes) == 3
    assert [len(group) for group in lh.param_groups(_compiled(model))] == sizes
    assert len(lh.param_groups(_compiled(model), lambda m: [[*m[:3].parameters()], [*m[3].parameters()]])) == 2
    model[0] = _compiled(encoder)
    assert [len(group) for group in lh.param_groups(model)] == sizes


def test_fingerprints_of_compiled_modules_are_those_of_others() -> None:
    model = _model()
    assert fingerprint(_compiled(model)) == fingerprint(model)
    compiled = copy.deepcopy(model)
    compiled.encoder = _compiled(compiled.encoder)
    assert fingerprint(compiled) == fingerprint(model)


def test_weights_of_fastai_load_into_a_compiled_unet(tmp_path: Path) -> None:
    unet = lh.DynamicUnet("test_resnet", 2, pretrained=False, decoder="fastai")
    weights = {name: torch.ones_like(value) for name, value in unet.state_dict().items() if name[-5:] != ".mean"}
    torch.save({name: value for name, value in weights.items() if name[-4:] != ".std"}, tmp_path / "weights.pt")
    lh.load_fastai_unet(_compiled(unet), tmp_path / "weights.pt")
    assert all((parameter == 1).all() for parameter in unet.parameters())


def test_a_compiled_head_is_split_after_its_pooling() -> None:
    head = lh.create_head(8, 2)
    assert [[*map(id, part)] for part in split_pooling(_compiled(head))] == [
        [*map(id, part)] for part in split_pooling(head)
    ]


@pytest.mark.parametrize("part", ["model", "encoder"])
def test_checkpoints_load_into_compiled_and_plain_models(tmp_path: Path, part: str) -> None:
    plain, compiled = Task(), Task()
    holder: Any = compiled if part == "model" else compiled.model
    setattr(holder, part, _compiled(getattr(holder, part)))
    for name, task in (("plain", plain), ("compiled", compiled)):
        trainer = trainer_for(tmp_path, [])
        trainer.strategy.connect(task)
        trainer.save_checkpoint(tmp_path / f"{name}.ckpt")
    loaded = Task.load_from_checkpoint(tmp_path / "compiled.ckpt")
    assert all(torch.equal(*pair) for pair in zip(loaded.parameters(), compiled.parameters(), strict=True))
    checkpoint = torch.load(tmp_path / "plain.ckpt")
    compiled.on_load_checkpoint(checkpoint)
    compiled.load_state_dict(checkpoint["state_dict"])
    assert all(torch.equal(*pair) for pair in zip(plain.parameters(), compiled.parameters(), strict=True))


@pytest.mark.parametrize("compiled", ["task", "model"])
def test_compiled_tasks_are_augmented(tmp_path: Path, compiled: str) -> None:
    task = Task().eval()
    plain, loader = TestTimeAugmentation(task, "dihedral"), _loader(IMAGES, CLASSES)
    expected, outputs = trainer_for(tmp_path, []).test(plain, loader, verbose=False), plain(IMAGES)
    if compiled == "model":
        task.model = _compiled(task.model)
    tta = TestTimeAugmentation(_compiled(task) if compiled == "task" else task, "dihedral")
    assert tta.class_names == ("a", "b")
    assert trainer_for(tmp_path, []).test(tta, loader, verbose=False) == expected
    predictions = torch.cat(trainer_for(tmp_path, []).predict(tta, DataLoader(IMAGES, 2)))
    torch.testing.assert_close(predictions, outputs)


def test_features_of_a_compiled_model_are_cached(tmp_path: Path) -> None:
    class Epochs(L.Callback):
        def __init__(self) -> None:
            self.with_features: list[bool] = []

        def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
            self.with_features.append(pl_module.takes_features)

    task, epochs = Task(), Epochs()
    task.model = _compiled(task.model)
    callbacks: list[L.Callback] = [lh.FineTune(1, norm="eval"), lh.FeatureCache(progress=False), epochs]
    trainer_for(tmp_path, callbacks, 2).fit(task, _loader(IMAGES, CLASSES))
    assert epochs.with_features == [True, False]
