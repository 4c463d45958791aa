"""Verification of pairs: training, metrics compared with scikit-learn's, and refused targets."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from pytorch_metric_learning.losses import NTXentLoss as MetricLearningNTXent
from sklearn.metrics import accuracy_score, roc_auc_score
from torch.nn.functional import cross_entropy

import lightning_heads as lh
from lightning_heads.losses.verification import PairLoss
from tests.helpers import trainer_for


def _data(folder: Path, **options: Any) -> lh.PairFolderData:
    return lh.PairFolderData(folder, **{"image_size": 32, "batch_size": 8, "num_workers": 0, **options})


def _task(**options: Any) -> lh.PairClassifier:
    return lh.PairClassifier("test_resnet", pretrained=False, **options)


def test_the_books_recipe_learns(make_image: Callable[..., Path], tmp_path: Path) -> None:
    for i in range(72):
        make_image(f"levels/{i % 2}/{i}.png", level=70 + 100 * (i % 2), seed=i)
    L.seed_everything(0, verbose=False)
    task = _task(lr=1e-3, comparison="all", ps=0.0)
    phases = lh.Phases([lh.Phase(4, train_from=-1, lr=3e-3), lh.Phase(8, lr=(1e-4, 3e-3))])
    trainer = trainer_for(tmp_path, [phases], epochs=12)
    trainer.fit(task, _data(tmp_path / "levels", valid_fraction=0.3))
    assert trainer.callback_metrics["val_accuracy"] > 0.9
    assert {"val_auroc", "val_equal_error_rate", "val_loss", "train_loss"} <= set(trainer.callback_metrics)


class Recorded(lh.PairClassifier):
    """Records its training batches."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        self.seen = [tuple(part.shape) for part in batch]


@pytest.mark.parametrize(
    ("comparison", "last"), [("cosine", [(8,), (8, 2)]), ("concatenation", [(8,)])], ids=["cosine", "book"]
)
def test_drawn_pairs_have_classes_where_the_loss_is_of_all_pairs(
    class_folder: Path, tmp_path: Path, comparison: Any, last: list[tuple[int, ...]]
) -> None:
    task = Recorded("test_resnet", pretrained=False, comparison=comparison)
    trainer_for(tmp_path, [], epochs=1).fit(task, _data(class_folder))
    assert task.seen[2:] == last


def test_the_training_loss_is_of_all_pairs_of_the_batch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = _task(ps=0.0, label_smoothing=0.1).train()
    task.log = lambda *args, **options: None  # type: ignore[method-assign]
    images, classes = torch.rand(6, 3, 32, 32), torch.tensor([0, 1, 2, 0, 0, 2])
    pairs = classes.view(2, 3).T
    loss = task.training_step([images[:3], images[3:], pairs[:, 0] == pairs[:, 1], pairs], 0)
    embeddings = task.model.embeddings(task.model.features(images))
    scale, threshold = task.model.head.log_scale.exp().item(), task.model.head.threshold
    nt_xent = MetricLearningNTXent(temperature=1 / scale)(embeddings, classes)
    same = torch.tensor([[a == b for b in classes] for a in classes])
    kept = ~torch.eye(6, dtype=torch.bool)
    probability = (scale * (embeddings @ embeddings.T - threshold)).sigmoid()
    probability = probability.where(same, 1 - probability)  # of the right answer
    entropy = -(0.95 * probability.log() + 0.05 * (1 - probability).log())
    expected = nt_xent + (entropy[same & kept].mean() + entropy[~same].mean()) / 2
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)


def test_pairs_without_classes_train_on_the_given_pairs(tmp_path: Path) -> None:
    task = _task(ps=0.0).eval()
    task.log = lambda *args, **options: None  # type: ignore[method-assign]
    first, second = torch.rand(2, 4, 3, 32, 32)
    same = torch.tensor([True, False, False, True])
    expected = cross_entropy(task(first, second), same.long())
    torch.testing.assert_close(task.training_step([first, second, same], 0), expected)


def test_what_follows_the_target_is_used_only_if_it_is_classes() -> None:
    task = _task(ps=0.0).eval()
    task.log = lambda *args, **options: None  # type: ignore[method-assign]
    first, second = torch.rand(2, 4, 3, 32, 32)
    same = torch.tensor([True, False, False, True])
    expected = task.training_step([first, second, same], 1)
    for other in (torch.arange(4), torch.rand(4, 2), ["a", "b", "c", "d"]):
        torch.testing.assert_close(task.training_step([first, second, same, other], 1), expected)
    with pytest.raises(ValueError, match="the fourth part of a batch to be the classes of both images"):
        task.training_step([first, second, same, torch.arange(8).view(4, 2)], 1)


class OwnForward(lh.PairClassifier):
    """Has a `forward` of its own."""

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        outputs: torch.Tensor = self.model(first, second)
        return outputs * 2


def test_a_subclass_may_have_its_own_forward(class_folder: Path, tmp_path: Path) -> None:
    task = OwnForward("test_resnet", pretrained=False)
    trainer_for(tmp_path, [], epochs=1).fit(task, _data(class_folder))


def test_a_splitter_by_encoder_and_head_has_all_parameters() -> None:
    task = _task(splitter=lambda model: [[*model.encoder.parameters()], [*model.head.parameters()]])
    assert {id(p) for group in task.param_groups() for p in group} == {id(p) for p in task.parameters()}


def test_a_task_for_single_images_is_refused(class_folder: Path, tmp_path: Path) -> None:
    task = lh.ImageEmbedder("test_resnet", pretrained=False)
    message = "a task for pairs of images, such as `PairClassifier`, but ImageEmbedder takes 1 at a time"
    with pytest.raises(TypeError, match=message):
        trainer_for(tmp_path, []).predict(task, _data(class_folder, test_fraction=0.2))


@pytest.mark.parametrize("same", [torch.tensor([0, 0, 0]), torch.tensor([0, 1, 2])], ids=["one class", "all differ"])
def test_a_batch_without_a_kind_of_pair_has_a_finite_loss(same: torch.Tensor) -> None:
    logits = torch.randn(3, 3, requires_grad=True)
    loss = PairLoss().all_pairs(logits, same)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_images_of_a_class_are_told_apart_from_the_others(make_image: Callable[..., Path], tmp_path: Path) -> None:
    for i in range(72):
        make_image(f"levels/{i % 3}/{i}.png", level=60 + 60 * (i % 3), seed=i)
    L.seed_everything(0, verbose=False)
    task = _task(lr=3e-3, ps=0.0)
    trainer = trainer_for(tmp_path, [], epochs=6)
    trainer.fit(task, _data(tmp_path / "levels", valid_fraction=0.3))
    assert trainer.callback_metrics["val_accuracy"] > 0.9
    # the embeddings that are compared are those of the search
    index = lh.embed(task, tmp_path / "levels", image_size=32, batch_size=72)
    close = index.embeddings @ index.embeddings.T > task.model.head.threshold
    classes = [Path(name).parent for name in index.names]
    same = torch.tensor([[a == b for b in classes] for a in classes])
    assert (close == same).float().mean() > 0.9


def test_features_of_pairs_are_cached_with_their_classes(class_folder: Path, tmp_path: Path) -> None:
    seen = {}
    for name, cache in (("cached", [lh.FeatureCache(progress=False)]), ("images", [])):
        L.seed_everything(0, verbose=False)
        task = Recorded("test_resnet", pretrained=False, ps=0.0)
        phases = lh.Phases([lh.Phase(train_from=-1, norm="eval")])
        trainer = trainer_for(tmp_path, [phases, *cache], epochs=2)
        trainer.fit(task, _data(class_folder, augment=False, resize="squish"))
        seen[name] = task.seen, torch.stack([trainer.callback_metrics[key] for key in ("train_loss", "val_loss")])
    assert seen["cached"][0] == [(8, 2 * 96), (8, 2 * 96), (8,), (8, 2)]
    torch.testing.assert_close(seen["cached"][1], seen["images"][1], atol=1e-4, rtol=1e-4)


def test_scores_equal_scikit_learns(class_folder: Path, tmp_path: Path) -> None:
    task = _task().eval()
    data = _data(class_folder, batch_size=3)
    scores = trainer_for(tmp_path, []).validate(task, data, verbose=False)[0]
    batches = [*data.val_dataloader()]
    same = torch.cat([batch[2] for batch in batches])
    assert same.dtype == torch.bool
    with torch.no_grad():
        logits = torch.cat([task(*batch[:2]) for batch in batches])
    probabilities = logits.softmax(1)[:, 1].numpy()
    expected = {
        "val_loss": cross_entropy(logits, same.long()).item(),
        "val_accuracy": accuracy_score(same, probabilities > 0.5),
        "val_auroc": roc_auc_score(same, probabilities),
    }
    for name, value in expected.items():
        assert scores[name] == pytest.approx(value, abs=1e-5), name


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_targets_of_any_type_give_one_loss(kind: torch.dtype) -> None:
    task = _task().eval()
    first, second = torch.rand(2, 4, 3, 32, 32)
    same = torch.tensor([1, 0, 0, 1])
    outputs, target = task.outputs_and_target([first, second, same.to(kind)])
    torch.testing.assert_close(task.criterion(outputs, target), cross_entropy(task(first, second), same))


def test_reloads_without_arguments_and_predicts_the_same(class_folder: Path, tmp_path: Path) -> None:
    task = _task(comparison="difference", symmetric=True, ps=0.25)
    data = _data(class_folder, test_fraction=0.2)
    trainer = trainer_for(tmp_path, [lh.PredictionWriter(tmp_path / "out")], epochs=1)
    trainer.fit(task, data)
    trainer.save_checkpoint(tmp_path / "pairs.ckpt")
    loaded = lh.PairClassifier.load_from_checkpoint(tmp_path / "pairs.ckpt", weights_only=True)
    expected, got = (torch.cat(trainer.predict(model, data)) for model in (task, loaded))
    torch.testing.assert_close(got, expected)
    with (tmp_path / "out/predictions.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert [*rows[0]] == ["first", "second", "class", "probability", "different", "same"]
    assert len(rows) == len(expected)
    assert all(Path(row[name]).is_file() for row in rows for name in ("first", "second"))


def test_draws_the_worst_pairs(class_folder: Path, tmp_path: Path) -> None:
    data = _data(class_folder, test_fraction=0.2)
    trainer_for(tmp_path, [lh.WorstPredictionsPlot(tmp_path, 4), lh.ConfusionMatrixPlot(tmp_path)]).test(
        _task(), data, verbose=False
    )
    assert (tmp_path / "worst_predictions.png").stat().st_size > 5000
    assert (tmp_path / "confusion_matrix.png").is_file()


@pytest.mark.parametrize(
    ("same", "message"),
    [
        (torch.tensor([0, 1, 2, 1]), r"targets of 0 and 1, but got \[0, 1, 2\]"),
        (torch.tensor([0, 0.9, 1, 1]), r"targets of 0 and 1, but got \[0.0, 0.8999"),
        (torch.zeros(4, 2), r"a target for each of 4 pairs, but got \(4, 2\)"),
    ],
)
def test_other_targets_are_refused(same: torch.Tensor, message: str) -> None:
    first, second = torch.rand(2, 4, 3, 32, 32)
    with pytest.raises(ValueError, match=message):
        _task().validation_step([first, second, same], 0)
