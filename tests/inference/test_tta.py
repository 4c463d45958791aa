import csv
import warnings
from pathlib import Path

import lightning as L
import pytest
import torch
from sklearn.metrics import accuracy_score
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy
from torchvision.transforms import v2

import lightning_heads as lh
from lightning_heads.inference.tta import TestTimeAugmentation

CLASSES = torch.tensor([0, 1, 2, 0, 1, 2, 2, 1])


class _Softmaxed(lh.TransferModule):
    def activation(self, outputs: Tensor) -> Tensor:
        return outputs.softmax(dim=1)


def _trainer(folder: Path, **settings: object) -> L.Trainer:
    options = {"max_epochs": 1, "logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
    return L.Trainer(default_root_dir=folder, enable_model_summary=False, **{**options, **settings})


def _classifier(size: int = 6) -> lh.TransferModule:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, 3))
    return _Softmaxed(model, nn.CrossEntropyLoss(), {"accuracy": MulticlassAccuracy(3, average="micro")}).eval()


def _segmenter() -> lh.TransferModule:
    """A model whose maps are not equivariant to flips and rotations of its images."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))
    return _Softmaxed(model, nn.CrossEntropyLoss(), {"accuracy": MulticlassAccuracy(3, average="micro")}).eval()


def _loader(*tensors: Tensor) -> DataLoader:
    return DataLoader(TensorDataset(*tensors), 3)


@pytest.mark.parametrize(("beta", "use_max"), [(0.25, False), (0.6, False), (0.25, True)])
def test_equals_fastais_tta(tmp_path: Path, beta: float, use_max: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import fastai.callback.all  # noqa: F401  # adds `no_bar` to the learner
        from fastai.data.core import Datasets
        from fastai.learner import Learner
        from fastai.losses import CrossEntropyLossFlat
        from fastai.torch_core import TensorImage
        from fasttransform import Transform

        class Flip(Transform):
            split_idx = 0

            def encodes(self, x: TensorImage):  # type: ignore[no-untyped-def]
                return x.flip(-1)

        task, images = _classifier(), torch.rand(8, 3, 6, 6)
        items = Datasets(
            range(8), [[lambda i: TensorImage(images[i])], [lambda i: CLASSES[i]]], splits=[[*range(8)], [*range(8)]]
        )
        loaders = items.dataloaders(bs=3, after_batch=[Flip()], device="cpu", num_workers=0)
        learner = Learner(loaders, task.model, CrossEntropyLossFlat(), path=tmp_path)
        with learner.no_bar(), learner.no_logging():
            expected, _ = learner.tta(n=2, beta=beta, use_max=use_max)
    flip = v2.RandomHorizontalFlip(p=1.0)
    reduce = "max" if use_max else "mean"
    trainer = _trainer(tmp_path)
    for augmentation in (flip, "flips"):
        tta = TestTimeAugmentation(task, augmentation, n=2, beta=beta, reduce=reduce)
        predictions = torch.cat(trainer.predict(tta, _loader(images)))
        torch.testing.assert_close(predictions, torch.Tensor(expected))
    assert not torch.allclose(predictions, torch.cat(trainer.predict(task, _loader(images))), atol=1e-3)


def test_logs_and_returns_the_same_keys_as_the_task(tmp_path: Path) -> None:
    task, images = _classifier(), torch.rand(8, 3, 6, 6)
    results: list[dict] = []

    class Keep(L.Callback):
        def on_test_batch_end(self, trainer, pl_module, outputs, *args) -> None:  # type: ignore[no-untyped-def]
            results.append(outputs)

    trainer = _trainer(tmp_path, callbacks=[Keep()])
    plain = trainer.test(task, _loader(images, CLASSES), verbose=False)[0]
    keys = results[0].keys()
    results.clear()
    tta = TestTimeAugmentation(task, "dihedral", beta=0.0)
    logged = trainer.test(tta, _loader(images, CLASSES), verbose=False)[0]
    assert logged.keys() == plain.keys()
    assert logged["test_loss"] == pytest.approx(plain["test_loss"])
    assert all(result.keys() == keys for result in results)
    predictions = torch.cat([result["predictions"] for result in results])
    torch.testing.assert_close(predictions, torch.cat(trainer.predict(tta, _loader(images, CLASSES))))
    assert logged["test_accuracy"] == pytest.approx(accuracy_score(CLASSES, predictions.argmax(1)))
    assert torch.equal(torch.cat([result["target"] for result in results]), CLASSES)
    validated = trainer.validate(tta, _loader(images, CLASSES), verbose=False)[0]
    assert validated["val_accuracy"] == pytest.approx(logged["test_accuracy"])


def test_default_is_four_passes_of_fastais_augmentation() -> None:
    task, images = _classifier(size=16), torch.rand(2, 3, 16, 16)
    augmentation = lh.AugTransforms()
    torch.manual_seed(3)
    passes = [task(torch.stack([augmentation(image) for image in images])).softmax(1) for _ in range(4)]
    expected = 0.75 * torch.stack(passes).mean(0) + 0.25 * task(images).softmax(1)
    torch.manual_seed(3)
    torch.testing.assert_close(TestTimeAugmentation(task)(images), expected)


@pytest.mark.parametrize("size", [(6, 6), (4, 6)])
def test_maps_are_transformed_back(size: tuple[int, int]) -> None:
    task, images = _segmenter(), torch.rand(2, 3, *size)

    def predict(x: Tensor) -> Tensor:
        return task(x).softmax(1)

    passes = [predict(images.flip(-1)).flip(-1), predict(images.flip(-2)).flip(-2)]
    passes.append(predict(images.flip(-1, -2)).flip(-1, -2))
    if size[0] == size[1]:
        passes += [predict(images.rot90(k, (2, 3))).rot90(-k, (2, 3)) for k in (1, 3)]
        passes.append(predict(images.mT).mT)
        passes.append(predict(images.mT.flip(-1, -2)).flip(-1, -2).mT)
    expected = torch.stack(passes).mean(0).lerp(predict(images), 0.25)
    torch.testing.assert_close(TestTimeAugmentation(task, "dihedral")(images), expected)
    torch.testing.assert_close(TestTimeAugmentation(task, "flips", n=4)(images), passes[0].lerp(predict(images), 0.25))
    highest = torch.stack([*passes[:2], predict(images)]).amax(0)
    torch.testing.assert_close(TestTimeAugmentation(task, "dihedral", n=2, reduce="max")(images), highest)


def test_the_mean_over_the_dihedral_group_is_equivariant() -> None:
    tta, images = TestTimeAugmentation(_segmenter(), "dihedral", beta=1 / 8), torch.rand(2, 3, 6, 6)
    for turn in (lambda x: x.rot90(1, (2, 3)), lambda x: x.flip(-1), lambda x: x.mT):
        torch.testing.assert_close(tta(turn(images)), turn(tta(images)))
    assert not torch.allclose(tta.task(images.mT), tta.task(images).mT)


def test_maps_are_evaluated_against_masks(tmp_path: Path) -> None:
    images, masks = torch.rand(4, 3, 6, 6), torch.randint(3, (4, 6, 6))
    tta = TestTimeAugmentation(_segmenter(), "dihedral")
    trainer = _trainer(tmp_path)
    logged = trainer.test(tta, _loader(images, masks), verbose=False)[0]
    predictions = torch.cat(trainer.predict(tta, _loader(images)))
    expected = accuracy_score(masks.flatten(), predictions.argmax(1).flatten())
    assert logged["test_accuracy"] == pytest.approx(expected)


def test_both_images_of_a_pair_get_the_same_transform() -> None:
    class Difference(nn.Module):
        num_inputs = 2

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return (a - b).abs().mean((1, 2, 3))[:, None]

    images = torch.rand(2, 3, 6, 6)
    task = lh.TransferModule(Difference(), nn.MSELoss())
    tta = TestTimeAugmentation(task, "dihedral")
    torch.testing.assert_close(tta.predict_step([images, images, torch.zeros(2, 1)], 0), torch.zeros(2, 1))


@pytest.mark.parametrize("ckpt", ["best", "path"])
def test_a_checkpoint_of_the_task_can_be_loaded(tmp_path: Path, ckpt: str) -> None:
    images = torch.rand(8, 3, 6, 6)
    task = _classifier()
    trainer = _trainer(tmp_path)
    trainer.fit(task.train(), _loader(images, CLASSES))
    path = trainer.checkpoint_callback.best_model_path
    other = TestTimeAugmentation(_classifier(), "dihedral")
    trainer = trainer if ckpt == "best" else _trainer(tmp_path)
    trainer.test(other, _loader(images, CLASSES), ckpt_path="best" if ckpt == "best" else path, verbose=False)
    torch.testing.assert_close(other(images), TestTimeAugmentation(task, "dihedral")(images), atol=0, rtol=0)


def test_callbacks_and_data_use_the_class_names_of_the_task(class_folder: Path, tmp_path: Path) -> None:
    data = lh.ImageFolderData(class_folder, image_size=32, batch_size=8, num_workers=0, test_fraction=0.2)
    task = lh.ImageClassifier("test_resnet", 2, pretrained=False)
    trainer = _trainer(tmp_path, callbacks=[lh.PredictionWriter(tmp_path)])
    trainer.test(TestTimeAugmentation(task), data, verbose=False)
    with (tmp_path / "predictions.csv").open() as file:
        assert [*next(csv.reader(file))] == ["file", "class", "probability", "bright", "dark"]
    wrong = TestTimeAugmentation(lh.ImageClassifier("test_resnet", 3, pretrained=False))
    with pytest.raises(ValueError, match="data with 3 classes, as the model has, but got 2"):
        _trainer(tmp_path).test(wrong, data)


def test_class_names_and_multilabel_are_those_of_the_task() -> None:
    labels = lh.ImageClassifier("test_resnet", 2, multilabel=True, class_names=["sun", "sea"], pretrained=False)
    assert TestTimeAugmentation(labels).class_names == ["sun", "sea"]
    assert TestTimeAugmentation(labels).multilabel
    numbers = TestTimeAugmentation(lh.ImageRegressor("test_resnet", 2, pretrained=False))
    assert numbers.class_names is None
    assert not numbers.multilabel


def test_augmentations_that_cannot_be_inverted_are_refused_for_maps() -> None:
    with pytest.raises(ValueError, match=r"flips or dihedral for predictions .* but got AugTransforms"):
        TestTimeAugmentation(_segmenter())(torch.rand(2, 3, 6, 6))


@pytest.mark.parametrize("images", [torch.rand(2, 108), torch.zeros(2, 3, 6, 6, dtype=torch.uint8)])
def test_inputs_that_are_not_images_are_refused(images: Tensor) -> None:
    tta = TestTimeAugmentation(lh.TransferModule(nn.Identity(), nn.MSELoss()))
    with pytest.raises(ValueError, match=r"float images \(b, c, h, w\), but got torch"):
        tta(images)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"augmentation": "flip"}, "`augmentation` to be flips, dihedral or a module, but got 'flip'"),
        ({"n": 0}, "`n` to be at least 1, but got 0"),
        ({"beta": 2}, r"`beta` in \[0, 1\], but got 2"),
        ({"reduce": "median"}, "`reduce` to be mean or max, but got 'median'"),
    ],
)
def test_wrong_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TestTimeAugmentation(_classifier(), **settings)
