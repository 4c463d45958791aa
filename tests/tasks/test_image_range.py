"""Tasks look at the images of each loader's first batch, and refuse those that are not in 0..1."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import lightning_heads as lh
from lightning_heads.inference.tta import TestTimeAugmentation
from tests.helpers import trainer_for

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 1, 0, 1])
MASKS = torch.zeros(4, 32, 32, dtype=torch.long)
UNITS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "uint8": (lambda images: (images * 255).byte(), "Expected float .* in 0..1, but got torch.uint8"),
    "float": (lambda images: images * 255, r"in 0..1, but this batch has values from [\d.]+ to 25[45]"),
}
TASKS: dict[str, tuple[Callable[[], lh.TransferModule], list[Tensor]]] = {
    "classes": (lambda: lh.ImageClassifier("test_resnet", 2, pretrained=False), [IMAGES, CLASSES]),
    "numbers": (lambda: lh.ImageRegressor("test_resnet", pretrained=False), [IMAGES, torch.rand(4, 1) * 255]),
    "masks": (lambda: lh.ImageSegmenter("test_resnet", 2, pretrained=False), [IMAGES, MASKS]),
    "embeddings": (lambda: lh.ImageEmbedder("test_resnet", 8, pretrained=False), [IMAGES, CLASSES]),
    "pairs": (lambda: lh.PairClassifier("test_resnet", pretrained=False), [IMAGES, IMAGES, CLASSES]),
    "restoration": (lambda: lh.ImageRestorer("test_resnet", pretrained=False), [IMAGES, IMAGES]),
    "any": (
        lambda: lh.TransferModule(lh.DenseModel("test_resnet", 2, pretrained=False), nn.CrossEntropyLoss()),
        [IMAGES, MASKS],
    ),
    "a sequence": (
        lambda: lh.TransferModule(
            nn.Sequential(lh.Encoder("test_resnet", pretrained=False), lh.create_head(96, 2)), nn.CrossEntropyLoss()
        ),
        [IMAGES, CLASSES],
    ),
}


def _loader(*tensors: Tensor) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*tensors), 2)


def _classifier() -> lh.TransferModule:
    return TASKS["classes"][0]()


@pytest.mark.parametrize("kind", TASKS)
def test_images_of_every_task_are_refused(tmp_path: Path, kind: str) -> None:
    make, tensors = TASKS[kind]
    task, trainer = make(), trainer_for(tmp_path, [])
    trainer.validate(task, _loader(*tensors), verbose=False)
    for position, images in enumerate(tensors):
        if images is IMAGES:
            for convert, message in UNITS.values():
                converted = [*tensors[:position], convert(images), *tensors[position + 1 :]]
                with pytest.raises(ValueError, match=message):
                    trainer.validate(task, _loader(*converted), verbose=False)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("stage", ["fit", "fit without sanity check", "test", "predict", "augmented", "lr_find"])
def test_every_stage_looks_at_its_first_batch(tmp_path: Path, stage: str, unit: str) -> None:
    convert, message = UNITS[unit]
    trainer = trainer_for(tmp_path, [], 1, num_sanity_val_steps=0 if "without" in stage else 1)
    task, good, bad = _classifier(), _loader(IMAGES, CLASSES), _loader(convert(IMAGES), CLASSES)
    run: dict[str, Callable[[], object]] = {
        "fit": lambda: trainer.fit(task, bad),
        "fit without sanity check": lambda: trainer.fit(task, good, bad),
        "test": lambda: trainer.test(task, bad, verbose=False),
        "predict": lambda: trainer.predict(task, DataLoader(convert(IMAGES), 2)),
        "augmented": lambda: trainer.predict(TestTimeAugmentation(task, "flips"), bad),
        "lr_find": lambda: lh.lr_find(trainer, task, bad, num_steps=2),
    }
    with pytest.raises(ValueError, match=message):
        run[stage]()


def test_what_follows_the_inputs_in_a_prediction_is_not_looked_at(tmp_path: Path) -> None:
    task, trainer = TASKS["restoration"][0](), trainer_for(tmp_path, [])
    assert len(trainer.predict(task, _loader(IMAGES, torch.arange(4)))) == 2


class Recorded(lh.ImageClassifier):
    """Records the batches that it looks at."""

    def __init__(self) -> None:
        super().__init__("test_resnet", 2, pretrained=False)
        self.looked_at: list[Tensor] = []

    def check_first_batch(self, batch: Any) -> None:
        self.looked_at.append(batch[0])
        super().check_first_batch(batch)


def test_only_the_first_batch_of_each_loader_is_looked_at(tmp_path: Path) -> None:
    task = Recorded()
    trainer = trainer_for(tmp_path, [], 3)
    training, validation = (_loader(images, CLASSES) for images in (IMAGES, IMAGES.flip(0)))
    trainer.fit(task, training, validation)
    firsts = [IMAGES.flip(0)[:2], IMAGES[:2]]
    assert all(torch.equal(*pair) for pair in zip(task.looked_at, firsts, strict=True))
    trainer.test(task, training, verbose=False)
    trainer.predict(task, [training, validation])
    assert len(task.looked_at) == 5
    with pytest.raises(ValueError, match=r"in 0\.\.1, but this batch"):
        trainer_for(tmp_path, [], 1).fit(task, _loader(IMAGES * 255, CLASSES))


@pytest.mark.parametrize("kind", ["own units", "not normalized", "no encoder", "features of images"])
def test_models_of_other_inputs_are_not_refused(tmp_path: Path, kind: str) -> None:
    images = IMAGES * 255
    inputs = [images]
    if kind == "no encoder":
        model: nn.Module = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    elif kind == "own units":
        mean, std = [124.0, 116.0, 104.0], [58.0, 57.0, 57.0]
        model = lh.ImageModel("test_resnet", 2, pretrained=False, mean=mean, std=std)
    elif kind == "not normalized":
        model = lh.ImageModel("test_resnet", 2, pretrained=False, normalize=False)
    else:
        model, inputs = _WithNumbers(), [IMAGES, torch.full((4, 2), 1000.0)]
    task = lh.TransferModule(model, nn.CrossEntropyLoss())
    trainer_for(tmp_path, [], 1).fit(task, _loader(*inputs, CLASSES))


class _WithNumbers(nn.Module):
    """Takes images and a vector of numbers for each."""

    num_inputs = 2

    def __init__(self) -> None:
        super().__init__()
        self.encoder = lh.Encoder("test_resnet", pretrained=False)
        self.head = nn.Linear(self.encoder.num_features + 2, 2)

    def forward(self, images: Tensor, numbers: Tensor) -> Tensor:
        out: Tensor = self.head(torch.cat([self.encoder(images).mean((2, 3)), numbers], dim=1))
        return out


def test_a_task_of_other_batches_is_not_looked_at(tmp_path: Path) -> None:
    class Named(lh.TransferModule):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return nn.functional.cross_entropy(self(batch["x"]), batch["y"])

    class Samples(Dataset[dict[str, Tensor]]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> dict[str, Tensor]:
            return {"x": IMAGES[index], "y": CLASSES[index]}

    task = Named(lh.ImageModel("test_resnet", 2, pretrained=False), nn.CrossEntropyLoss())
    trainer_for(tmp_path, [], 1).fit(task, DataLoader(Samples(), 2))


@pytest.mark.parametrize("unit", UNITS)
def test_images_are_looked_at_before_features_are_cached(tmp_path: Path, unit: str) -> None:
    convert, message = UNITS[unit]

    def fit(task: lh.TransferModule, images: Tensor) -> None:
        schedule: list[L.Callback] = [lh.FineTune(1, norm="eval"), lh.FeatureCache(progress=False)]
        trainer_for(tmp_path, schedule, 2).fit(task, _loader(images, CLASSES), _loader(IMAGES, CLASSES))

    task = Recorded()
    fit(task, IMAGES)
    assert [batch.shape for batch in task.looked_at] == [IMAGES[:2].shape] * 2  # of validation, then of training
    with pytest.raises(ValueError, match=message):
        fit(_classifier(), convert(IMAGES))


def test_an_encoder_refuses_integers() -> None:
    encoder = lh.Encoder("test_resnet", pretrained=False)
    with pytest.raises(ValueError, match=r"Expected float images in 0\.\.1, but got torch\.uint8"):
        encoder((IMAGES * 255).byte())
    with pytest.raises(ValueError, match=r"Expected float images in 0\.\.1, but got torch\.uint8"):
        lh.DynamicUnet(encoder, 2)((IMAGES * 255).byte())
