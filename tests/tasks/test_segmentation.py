import os
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import timm
import torch
from jsonargparse import ArgumentParser
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, recall_score
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from torchmetrics.classification import MulticlassJaccardIndex

import lightning_heads as lh
from lightning_heads.losses import DiceLoss, segmentation_loss
from lightning_heads.tasks.segmentation import ImageSegmenter
from tests.helpers import run_processes, trainer_for

IMAGES = torch.rand(10, 3, 32, 40, generator=torch.Generator().manual_seed(2))


class Data(L.LightningDataModule):
    """Images and masks with named classes."""

    def __init__(self, class_names: list[str], masks: Tensor, images: Tensor = IMAGES) -> None:
        super().__init__()
        self.class_names = class_names
        self.dataset = TensorDataset(images, masks)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.dataset, 5)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.dataset, 4)


def _segmenter(num_classes: int = 3, **settings: Any) -> ImageSegmenter:
    return ImageSegmenter("test_resnet", num_classes, **{"pretrained": False, **settings})


def _trainer(folder: Path, **settings: Any) -> L.Trainer:
    return trainer_for(folder, settings.pop("callbacks", []), **{"epochs": 1, **settings})


def _loader(masks: Tensor, images: Tensor = IMAGES) -> DataLoader:
    return DataLoader(TensorDataset(images, masks), 4)


def _masks(num_classes: int = 3, *shape: int) -> Tensor:
    return torch.randint(num_classes, (10, *shape, 32, 40))


def test_learns_shapes_of_two_colors(tmp_path: Path) -> None:
    L.seed_everything(1, verbose=False)
    masks, images = torch.zeros(15, 32, 32, dtype=torch.long), 0.3 * torch.rand(15, 3, 32, 32)
    for i in range(15):
        for kind, channel in ((1, 0), (2, 2)):
            y, x = torch.randint(20, (2,)).tolist()
            masks[i, y : y + 12, x : x + 12] = kind
            images[i, :, y : y + 12, x : x + 12] = 0.3
            images[i, channel, y : y + 12, x : x + 12] = 0.9
    task = _segmenter(3, loss={"cross_entropy": 1.0, "dice": 0.5}, lr=3e-3)
    trainer = _trainer(tmp_path, epochs=8)
    trainer.fit(task, Data(["none", "red", "blue"], masks, images))
    logged = trainer.callback_metrics
    assert logged["val_iou"] > 0.8
    assert min(logged["val_iou_red"], logged["val_iou_blue"]) > 0.7
    assert {"train_loss", "val_loss", "val_dice", "val_accuracy", "val_dice_red", "val_accuracy_none"} <= {*logged}


@pytest.mark.parametrize("kind", ["classes", "labels", "binary"])
def test_checkpoint_loads_without_arguments_and_gives_equal_outputs(tmp_path: Path, kind: str) -> None:
    weights = tmp_path / "weights.pth"
    torch.save(timm.create_model("test_resnet", pretrained=False).state_dict(), weights)
    names = {"classes": ["sky", "sea"], "labels": ["sky", "sea"], "binary": ["sea"]}[kind]
    settings: dict[str, Any] = {
        "classes": {"class_weights": [1, 3], "tile_size": (16, 32), "ignore_index": 255, "lr": (1e-4, 1e-3)},
        "labels": {"multilabel": True, "loss": {"dice": 1.0, "focal": 2.0}},
        "binary": {"loss": "tversky"},
    }[kind]
    masks = _masks(2) if kind != "labels" else _masks(2, 2)
    task = ImageSegmenter("test_resnet", len(names), weights=weights, **settings)
    trainer = _trainer(tmp_path, enable_checkpointing=True)
    trainer.fit(task, Data(names, masks))
    weights.unlink()  # a checkpoint must load without the file of pretrained weights
    loaded = ImageSegmenter.load_from_checkpoint(trainer.checkpoint_callback.best_model_path, weights_only=True)
    torch.testing.assert_close(loaded.eval()(IMAGES), task.eval()(IMAGES), atol=0, rtol=0)
    torch.testing.assert_close(loaded.predict_step(IMAGES, 0), task.predict_step(IMAGES, 0), atol=0, rtol=0)
    target = masks[:4]
    assert loaded.criterion(task(IMAGES[:4]), target) == task.criterion(task(IMAGES[:4]), target)
    assert loaded.class_names == names
    assert loaded.multilabel == (kind != "classes")
    assert (loaded.tiling.size, loaded.ignore_index) == (task.tiling.size, task.ignore_index)


def _scores(true: np.ndarray, answers: np.ndarray, n: int) -> dict[str, list[float]]:
    """Returns each score of each class by scikit-learn."""
    settings: dict[str, Any] = {"labels": range(n), "average": None, "zero_division": np.nan}
    return {
        "iou": jaccard_score(true, answers, labels=range(n), average=None, zero_division=0),
        "dice": f1_score(true, answers, **settings),
        "accuracy": recall_score(true, answers, **settings),
    }


@pytest.mark.parametrize("ignore_index", [None, 255, -1])
def test_scores_of_classes_equal_scikit_learns(tmp_path: Path, ignore_index: int | None) -> None:
    task, masks = _segmenter(4, class_names=["a", "b", "c", "never"], ignore_index=ignore_index), _masks(3)
    # the last class is in neither predictions nor masks
    task.model.register_forward_hook(lambda model, inputs, logits: logits - torch.eye(4)[3].view(4, 1, 1) * 100)
    if ignore_index is not None:
        masks[:, 3:9, 5:20] = ignore_index
    trainer = _trainer(tmp_path)
    logged = trainer.validate(task, _loader(masks), verbose=False)[0]
    probabilities = torch.cat(trainer.predict(task, _loader(masks)))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(10, 32, 40))
    kept = masks != ignore_index if ignore_index is not None else masks >= 0
    true, answers = masks[kept].numpy(), probabilities.argmax(1)[kept].numpy()
    for score, values in _scores(true, answers, 4).items():
        assert [logged[f"val_{score}_{name}"] for name in "abc"] == pytest.approx(values[:3])
        assert np.isnan(logged[f"val_{score}_never"])
        expected = accuracy_score(true, answers) if score == "accuracy" else np.mean(values[:3])
        assert logged[f"val_{score}"] == pytest.approx(expected)
    tested = trainer.test(task, _loader(masks), verbose=False)[0]
    assert {name.replace("test_", "val_"): value for name, value in tested.items()} == pytest.approx(
        logged, nan_ok=True
    )


def test_an_ignored_class_has_no_score(tmp_path: Path) -> None:
    task, masks = _segmenter(3, ignore_index=0), _masks(3)
    trainer = _trainer(tmp_path)
    logged = trainer.validate(task, _loader(masks), verbose=False)[0]
    probabilities = torch.cat(trainer.predict(task, _loader(masks)))
    kept, answers = masks != 0, probabilities.argmax(1)
    values = _scores(masks[kept].numpy(), answers[kept].numpy(), 3)
    for score in ("iou", "dice"):
        assert np.isnan(logged[f"val_{score}_0"])
        assert [logged[f"val_{score}_{i}"] for i in (1, 2)] == pytest.approx(values[score][1:])
        assert logged[f"val_{score}"] == pytest.approx(np.mean(values[score][1:]))
    expected = MulticlassJaccardIndex(3, ignore_index=0)(probabilities, masks).item()
    assert logged["val_iou"] == pytest.approx(expected)


@pytest.mark.parametrize("ignore_index", [None, 255])
@pytest.mark.parametrize("classes", [1, 3])
def test_scores_of_labels_equal_scikit_learns(tmp_path: Path, classes: int, ignore_index: int | None) -> None:
    task, masks = _segmenter(classes, multilabel=True, ignore_index=ignore_index), _masks(2, classes)
    if ignore_index is not None:
        masks[:, 0, 3:9, 5:20] = ignore_index
    trainer = _trainer(tmp_path)
    logged = trainer.validate(task, _loader(masks), verbose=False)[0]
    probabilities = torch.cat(trainer.predict(task, _loader(masks)))
    torch.testing.assert_close(probabilities, task.eval()(IMAGES).sigmoid())
    ious, dices, right = [], [], []
    for c in range(classes):
        kept = masks[:, c] != 255
        true, answers = masks[:, c][kept].numpy(), (probabilities[:, c][kept] > 0.5).numpy()
        ious.append(jaccard_score(true, answers))
        dices.append(f1_score(true, answers))
        right.append(true == answers)
        assert logged[f"val_accuracy_{c}"] == pytest.approx(accuracy_score(true, answers))
    assert [logged[f"val_iou_{c}"] for c in range(classes)] == pytest.approx(ious)
    assert [logged[f"val_dice_{c}"] for c in range(classes)] == pytest.approx(dices)
    assert logged["val_iou"] == pytest.approx(np.mean(ious))
    assert logged["val_dice"] == pytest.approx(np.mean(dices))
    assert logged["val_accuracy"] == pytest.approx(np.concatenate(right).mean())


@pytest.mark.parametrize("loss", ["cross_entropy", {"focal": 1.0, "dice": 1.0}])
def test_one_class_is_binary_with_or_without_a_channel(tmp_path: Path, loss: Any) -> None:
    task, masks = _segmenter(1, class_names=["road"], loss=loss, ignore_index=255), _masks(2)
    masks[:, :4] = 255
    assert task.multilabel
    trainer = _trainer(tmp_path)
    logged = [trainer.validate(task, _loader(m), verbose=False)[0] for m in (masks, masks[:, None])]
    assert logged[0] == logged[1]
    assert logged[0]["val_iou_road"] == logged[0]["val_iou"]
    trainer.fit(task, _loader(masks))
    assert trainer.predict(task, _loader(masks))[0].shape == (4, 1, 32, 40)


def test_class_names_come_from_the_data_even_after_an_evaluation_without_names(tmp_path: Path) -> None:
    masks, task = _masks(2), _segmenter(2)
    trainer = _trainer(tmp_path, enable_checkpointing=True)
    assert "val_iou_0" in trainer.validate(task, _loader(masks), verbose=False)[0]
    trainer.fit(task, Data(["sky", "sea"], masks))
    assert {"val_iou_sky", "val_iou_sea"} <= {*trainer.callback_metrics}
    assert "val_iou_0" not in trainer.callback_metrics
    assert not {name for name in trainer.progress_bar_metrics if name.endswith(("sky", "sea"))}
    assert {"val_loss", "val_iou", "val_dice", "val_accuracy"} <= {*trainer.progress_bar_metrics}
    loaded = ImageSegmenter.load_from_checkpoint(trainer.checkpoint_callback.best_model_path)
    assert loaded.class_names == ["sky", "sea"]
    with pytest.raises(ValueError, match=r"classes \['sky', 'sea'\], but got \['sky', 'lake'\]"):
        _trainer(tmp_path).validate(loaded, Data(["sky", "lake"], masks))
    with pytest.raises(ValueError, match="data with 3 classes, as the model has, but got 2"):
        _trainer(tmp_path).validate(_segmenter(3), Data(["sky", "sea"], masks))


def test_pixels_are_counted_once_for_all_scores(tmp_path: Path) -> None:
    task = _segmenter(2)
    _trainer(tmp_path).validate(task, _loader(_masks(2)), verbose=False)
    assert [sorted(group) for group in task.val_metrics.compute_groups.values()] == [["accuracy", "dice", "iou"]]


def test_settings_of_the_loss_are_passed_to_it() -> None:
    settings: dict[str, Any] = {"class_weights": [1.0, 2.0, 3.0], "ignore_index": 255, "label_smoothing": 0.1}
    loss = {"cross_entropy": 1.0, "dice": 0.5}
    logits, masks = torch.randn(10, 3, 32, 40), _masks(3)
    masks[:, :5] = 255
    expected = segmentation_loss(loss, **settings)(logits, masks)
    torch.testing.assert_close(_segmenter(3, loss=loss, **settings).criterion(logits, masks), expected)
    labels = _segmenter(3, loss="dice", multilabel=True)
    torch.testing.assert_close(
        labels.criterion(logits, _masks(2, 3).fill_(1)), DiceLoss(multilabel=True)(logits, torch.ones_like(logits))
    )


@pytest.mark.parametrize(("tile", "steps"), [(None, 1), (24, 4), ((32, 16), 3), (200, 1)])
def test_large_images_are_predicted_in_tiles(tmp_path: Path, tile: Any, steps: int) -> None:
    task, sizes = _segmenter(2, tile_size=tile).eval(), []
    task.model.register_forward_pre_hook(lambda model, inputs: sizes.append(tuple(inputs[0].shape)))
    predictions = task.predict_step([IMAGES[:2], _masks(2)[:2]], 0)
    assert predictions.shape == (2, 2, 32, 40)
    torch.testing.assert_close(predictions.sum(1), torch.ones(2, 32, 40))
    assert len(sizes) == steps
    height, width = {None: (32, 40), 24: (24, 24), (32, 16): (32, 16), 200: (32, 40)}[tile]
    assert set(sizes) == {(2, 3, height, width)}
    if steps == 1:
        assert torch.equal(predictions, task(IMAGES[:2]).softmax(1))


def test_an_encoder_of_one_size_predicts_images_of_any_size() -> None:
    task = ImageSegmenter("gmlp_ti16_224", 2, pretrained=False, image_size=96).eval()
    assert task.tiling.size == (96, 96)
    for size in ((20, 300), (10, 10)):
        assert task.predict_step(torch.rand(1, 3, *size), 0).shape == (1, 2, *size)
    with pytest.raises(
        ValueError, match=r"`tile_size` to be \(96, 96\), the only size that gmlp_ti16_224 takes, but got 64"
    ):
        ImageSegmenter("gmlp_ti16_224", 2, pretrained=False, image_size=96, tile_size=64)


def test_a_wrong_value_in_a_later_batch_is_refused(tmp_path: Path) -> None:
    masks = torch.zeros(10, 32, 40, dtype=torch.long)
    masks[4:] = 255
    with pytest.raises(ValueError, match="values from 0 to 2, but got 255"):
        _trainer(tmp_path).fit(_segmenter(), DataLoader(TensorDataset(torch.rand(10, 3, 32, 40), masks), 2))


def test_numpys_class_weights_are_loaded_from_a_checkpoint(tmp_path: Path) -> None:
    trainer = _trainer(tmp_path, enable_checkpointing=True)
    trainer.fit(_segmenter(class_weights=np.array([1.0, 2.0, 3.0])), _loader(_masks()))
    loaded = ImageSegmenter.load_from_checkpoint(trainer.checkpoint_callback.best_model_path, weights_only=True)
    assert loaded.hparams["class_weights"] == [1.0, 2.0, 3.0]


def test_augmented_predictions_of_large_images_are_tiled() -> None:
    task = _segmenter(2, tile_size=32).eval()
    sizes = []
    task.model.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape[-2:])))
    assert lh.TestTimeAugmentation(task, "flips").predict_step(torch.rand(1, 3, 64, 80), 0).shape == (1, 2, 64, 80)
    assert set(sizes) == {(32, 32)}


def test_ignore_index_comes_from_the_data(shapes_folder: Path, tmp_path: Path) -> None:
    masks = {"codes": {"background": 0, "square": 255}, "image_size": (32, 40), "num_workers": 0, "batch_size": 4}
    data = lh.MaskFolderData(shapes_folder, **masks, resize="pad")
    task = ImageSegmenter("test_resnet", 2, pretrained=False)
    _trainer(tmp_path).fit(task, data)
    assert task.ignore_index == task.criterion.ignore_index == task.val_metrics["iou"].ignore_index == 255
    assert task.hparams["ignore_index"] == 255
    with pytest.raises(ValueError, match="task's `ignore_index` 255, but got 7"):
        _trainer(tmp_path).fit(task, lh.MaskFolderData(shapes_folder, **masks, ignore_index=7))


@pytest.mark.parametrize(
    ("settings", "mask", "message"),
    [
        ({}, torch.zeros(10, 1, 32, 40).long(), r"masks of class indices of \(5, 32, 40\), but got \(5, 1, 32, 40\)"),
        ({}, torch.zeros(10, 32, 40), "class indices, which are integers, but got torch.float32"),
        ({}, torch.full((10, 32, 40), 3), "values from 0 to 2, but got 3"),
        ({}, torch.arange(10)[:, None, None].expand(10, 32, 40), "values from 0 to 2, but got 3, 4"),
        ({"ignore_index": 255}, torch.full((10, 32, 40), -1), r"from 0 to 2 or 255 \(`ignore_index`\), but got -1"),
        ({"multilabel": True}, torch.zeros(10, 32, 40), r"`multilabel` masks of \(5, 3, 32, 40\), but got \(5, 32, 40"),
        ({"multilabel": True}, torch.full((10, 3, 32, 40), 255), "values from 0 to 1, but got 255"),
        ({"num_classes": 1}, torch.full((10, 32, 40), 255.0), "values from 0 to 1, but got 255.0"),
    ],
)
def test_masks_of_another_kind_are_refused(tmp_path: Path, settings: dict, mask: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _trainer(tmp_path, num_sanity_val_steps=0).fit(
            _segmenter(**settings), Data(["x"] * settings.get("num_classes", 3), mask)
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 0}, "`num_classes` to be at least 2, but got 0"),
        ({"class_names": ["a"]}, "`class_names` to have 3 entries, one a class, but got 1"),
        ({"class_weights": [1.0, 2.0]}, "`class_weights` to have 3 entries"),
        ({"num_classes": 1, "class_weights": [2.0]}, "`class_weights` to be at least two numbers"),
        ({"loss": "iou"}, "`loss` to be of cross_entropy, dice, focal, tversky, but got 'iou'"),
        ({"loss": "dice", "label_smoothing": 0.1}, "`label_smoothing` with cross_entropy"),
        ({"tile_size": 0}, r"tiles to be at least 1 pixel high and wide, but got \(0, 0\)"),
        ({"tile_overlap": 1.0}, r"an overlap of tiles in \[0, 1\), but got 1.0"),
        ({"encoder": "resnet5O"}, "did you mean"),
    ],
)
def test_wrong_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageSegmenter(**{"encoder": "test_resnet", "num_classes": 3, "pretrained": False, **settings})


@pytest.mark.parametrize(
    ("text", "loss"),
    [("dice", "dice"), ('{"cross_entropy": 1, "dice": 0.5}', {"cross_entropy": 1.0, "dice": 0.5})],
)
def test_settings_can_be_given_as_text(text: str, loss: Any) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ImageSegmenter, "model")
    arguments = ["--model.encoder=test_resnet", "--model.num_classes=2", "--model.pretrained=false"]
    arguments += [f"--model.loss={text}", "--model.tile_size=[16, 32]", "--model.ignore_index=255"]
    task = parser.instantiate_classes(parser.parse_args(arguments)).model
    assert task.hparams["loss"] == loss
    assert (task.tiling.size, task.ignore_index) == ((16, 32), 255)


def validate(folder: Path, world_size: int) -> dict[str, float]:
    torch.manual_seed(3)
    masks = _masks(3)
    masks[:4], masks[5, :, 3:] = 255, 255  # so that ranks have different numbers of pixels
    task, data = _segmenter(3, ignore_index=255, class_weights=[1, 2, 5]), TensorDataset(IMAGES, masks)
    sampler = DistributedSampler(data, world_size, int(os.environ.get("LOCAL_RANK", 0)), shuffle=False)
    strategy = "ddp" if world_size > 1 else "auto"
    trainer = _trainer(folder, strategy=strategy, devices=world_size, use_distributed_sampler=False)
    return dict(trainer.validate(task, DataLoader(data, 5, sampler=sampler), verbose=False)[0])


def test_ranks_score_all_pixels(tmp_path: Path) -> None:
    ranks = run_processes(validate, 2, tmp_path, tmp_path, 2)
    assert ranks is not None
    alone = validate(tmp_path, 1)
    assert len(alone) == 13
    assert ranks == [pytest.approx(alone)] * 2
