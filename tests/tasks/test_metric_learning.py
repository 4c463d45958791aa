import math
import os
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset, TensorDataset

import lightning_heads as lh
from lightning_heads.losses.metric_learning import ContrastiveLoss, NTXentLoss, TripletLoss
from lightning_heads.metrics import EqualErrorRate
from lightning_heads.metrics.retrieval import RecallAtK, RetrievalMAP
from lightning_heads.tasks.metric_learning import ImageEmbedder
from tests.helpers import run_processes, trainer_for


def _task(**settings: Any) -> ImageEmbedder:
    return ImageEmbedder("test_resnet", **{"embedding_size": 8, "pretrained": False, **settings})


def _images(labels: Tensor) -> TensorDataset:
    """Noisy images whose color is their class."""
    generator = torch.Generator().manual_seed(1)
    colors = torch.rand(10, 3, 1, 1, generator=generator)
    return TensorDataset((colors[labels] + torch.rand(len(labels), 3, 32, 32, generator=generator)) / 2, labels)


@pytest.mark.parametrize("loss", ["triplet", "contrastive", "nt_xent"])
def test_it_learns_and_logs_the_metrics_of_its_embeddings(tmp_path: Path, loss: Any) -> None:
    L.seed_everything(1, verbose=False)
    data = _images(torch.arange(24) % 4)
    unseen = _images(torch.arange(21) % 6 + 4)
    task = _task(loss=loss, lr=3e-3)
    before = trainer_for(tmp_path, []).validate(task, DataLoader(data, 24), verbose=False)[0]["val_loss"]
    trainer = trainer_for(tmp_path, [], 8)
    trainer.fit(task, DataLoader(data, 12, shuffle=True), DataLoader(data, 24))
    logged = trainer.callback_metrics
    assert logged["val_loss"] < before
    assert {"train_loss", "val_recall_at_1", "val_recall_at_5", "val_mean_average_precision"} <= set(logged)
    # unseen classes, in several batches that queries are searched across
    loader = DataLoader(unseen, 4)
    tested = trainer.test(task, loader, verbose=False)[0]
    embeddings = torch.cat(trainer.predict(task, loader))
    assert embeddings.shape == (21, 8)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(21))
    labels = unseen.tensors[1]
    for name, metric in (
        ("recall_at_1", RecallAtK(1)),
        ("recall_at_5", RecallAtK(5)),
        ("mean_average_precision", RetrievalMAP()),
    ):
        assert tested[f"test_{name}"] == pytest.approx(metric(embeddings, labels).item(), abs=1e-6)
    # the threshold is that of validation
    assert task.threshold is not None
    first, second = torch.triu_indices(21, 21, 1)
    same = labels[first] == labels[second]
    found = task.verify(unseen.tensors[0][first], unseen.tensors[0][second])
    accuracy = (found[same].float().mean() + (~found[~same]).float().mean()) / 2
    assert tested["test_accuracy"] == pytest.approx(accuracy.item(), abs=1e-6)
    error_rate = EqualErrorRate()((embeddings[first] * embeddings[second]).sum(dim=1), same)
    assert tested["test_equal_error_rate"] == pytest.approx(error_rate.item(), abs=1e-3)


def test_the_threshold_is_the_best_of_validation_and_kept(tmp_path: Path) -> None:
    data, other = (DataLoader(_images(torch.arange(24) % count), 7) for count in (4, 3))
    task = _task(loss="nt_xent")
    with pytest.raises(ValueError, match="a threshold, which validation sets"):
        task.verify(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32))
    trainer = trainer_for(tmp_path, [], 1, num_sanity_val_steps=2)
    trainer.fit(task, data, data)
    threshold = task.threshold
    assert threshold is not None
    best = float(trainer.callback_metrics["val_accuracy"])
    assert trainer_for(tmp_path, []).test(task, data, verbose=False)[0]["test_accuracy"] == pytest.approx(best)
    task.threshold = 1.0  # accepts no pair
    for tested in (task, lh.TestTimeAugmentation(task, "flips")):
        assert trainer_for(tmp_path, []).test(tested, data, verbose=False)[0]["test_accuracy"] == 0.5
    task.threshold = threshold
    trainer.save_checkpoint(tmp_path / "embedder.ckpt")
    loaded = ImageEmbedder.load_from_checkpoint(tmp_path / "embedder.ckpt", weights_only=True)
    assert loaded.threshold == threshold
    trainer_for(tmp_path, []).test(_task(loss="nt_xent"), other, ckpt_path=tmp_path / "embedder.ckpt", verbose=False)
    # images of one class, or all of different ones, leave it as it is
    for labels in (torch.zeros(4, dtype=torch.long), torch.arange(4)):
        scores = trainer_for(tmp_path, []).validate(loaded, DataLoader(_images(labels), 2), verbose=False)[0]
        assert loaded.threshold == threshold
        assert math.isnan(scores["val_accuracy"])
    trainer_for(tmp_path, []).validate(loaded, other, verbose=False)
    assert loaded.threshold != threshold


@pytest.mark.parametrize(
    ("settings", "criterion", "values"),
    [
        ({}, TripletLoss, {"margin": 0.2}),
        ({"margin": 0.5}, TripletLoss, {"margin": 0.5}),
        ({"loss": "contrastive"}, ContrastiveLoss, {"positive_margin": 0.0, "negative_margin": 1.0}),
        ({"loss": "contrastive", "margin": 0.0}, ContrastiveLoss, {"positive_margin": 0.0, "negative_margin": 0.0}),
        ({"loss": "nt_xent"}, NTXentLoss, {"temperature": 0.07}),
        ({"loss": "nt_xent", "temperature": 0.2}, NTXentLoss, {"temperature": 0.2}),
    ],
)
def test_checkpoint_loads_without_arguments_and_gives_equal_outputs(
    tmp_path: Path, settings: dict[str, Any], criterion: type, values: dict[str, float]
) -> None:
    task = _task(**settings, lr=(1e-4, 1e-3))
    trainer = trainer_for(tmp_path, [], 1, limit_train_batches=1)
    trainer.fit(task, DataLoader(_images(torch.arange(8) % 2), 8))
    trainer.save_checkpoint(tmp_path / "embedder.ckpt")
    loaded = ImageEmbedder.load_from_checkpoint(tmp_path / "embedder.ckpt", weights_only=True)
    assert isinstance(loaded.criterion, criterion)
    assert {name: getattr(loaded.criterion, name) for name in values} == values
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(loaded.eval().predict(x), task.eval().predict(x), atol=0, rtol=0)
    assert loaded.lr == (1e-4, 1e-3)


def test_the_head_pools_by_average_and_is_one_linear_layer() -> None:
    task = _task().eval()
    x = torch.rand(2, 3, 64, 64)
    norm, linear = (task.model.head[i] for i in (-2, -1))
    torch.testing.assert_close(task(x), linear(norm(task.model.encoder(x).mean(dim=(2, 3)))))
    assert {id(p) for p in task.param_groups()[-1]} == {id(p) for p in (*norm.parameters(), *linear.parameters())}


def test_a_first_batch_without_two_images_of_a_class_is_warned_of(tmp_path: Path) -> None:
    alone, mixed = _images(torch.arange(8)), _images(torch.tensor([0, 1, 2, 0, 1, 2, 3, 4]))
    with pytest.warns(UserWarning, match="the 4 of this epoch's first batch are all of different.*`images_per_class`"):
        trainer_for(tmp_path, [], 1).fit(_task(), DataLoader(alone, 4))
    trainer_for(tmp_path, [], 1).fit(_task(), DataLoader(mixed, 4))
    trainer_for(tmp_path, []).test(_task(), DataLoader(alone, 4), verbose=False)


def _test_rank(folder: Path, world_size: int) -> dict[str, float]:
    """Tests an untrained task on this rank's images; of two ranks the first has all but one."""
    torch.manual_seed(0)
    data = _images(torch.arange(12) % 3)
    parts = [range(11), range(11, 12)] if world_size > 1 else [range(12)]
    loader = DataLoader(Subset(data, parts[int(os.environ.get("LOCAL_RANK", 0))]), 11)
    strategy = "ddp" if world_size > 1 else "auto"
    trainer = trainer_for(folder, [], strategy=strategy, devices=world_size, use_distributed_sampler=False)
    return dict(trainer.test(_task(), loader, verbose=False)[0])


def test_images_are_searched_over_all_ranks(tmp_path: Path) -> None:
    ranks = run_processes(_test_rank, 2, tmp_path, tmp_path, 2)
    alone = _test_rank(tmp_path, 1)
    assert ranks is not None
    for name in (
        f"test_{score}" for score in ("recall_at_1", "mean_average_precision", "equal_error_rate", "accuracy")
    ):
        assert ranks[0][name] == ranks[1][name] == pytest.approx(alone[name])


class Interrupted(ImageEmbedder):
    """Raises an error in its second validation batch as long as `is_broken`."""

    is_broken = True

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        if self.is_broken and batch_idx == 1:
            raise RuntimeError("interrupted")
        return super().validation_step(batch, batch_idx)


def test_a_validation_after_an_interrupted_one_starts_anew(tmp_path: Path) -> None:
    data = DataLoader(_images(torch.arange(12) % 3), 6)
    scores, thresholds = [], []
    for was_interrupted in (True, False):
        torch.manual_seed(0)
        task = Interrupted("test_resnet", embedding_size=8, pretrained=False)
        if was_interrupted:
            with pytest.raises(RuntimeError, match="interrupted"):
                trainer_for(tmp_path, []).validate(task, data, verbose=False)
        task.is_broken = False
        scores.append(trainer_for(tmp_path, []).validate(task, data, verbose=False)[0])
        thresholds.append(task.threshold)
    assert scores[0] == scores[1]
    assert thresholds[0] == thresholds[1]


class OwnStep(ImageEmbedder):
    """Has a validation step of its own."""

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        self.log("val_norm", self.predict(batch[0]).norm())
        return {}


def test_a_subclass_may_have_its_own_validation_step(tmp_path: Path) -> None:
    task = OwnStep("test_resnet", embedding_size=8, pretrained=False)
    trainer_for(tmp_path, []).validate(task, DataLoader(_images(torch.arange(4) % 2), 2), verbose=False)
    assert task.threshold is None


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(3, 32, 32), r"batches of images \(b, c, h, w\), but got \(3, 32, 32\)"),
        ("a.jpg", r"batches of images \(b, c, h, w\), but got str"),
        (torch.rand(1, 3, 32, 32) * 255, r"images in 0\.\.1, but this batch has values from"),
    ],
    ids=["one image", "path", "range"],
)
def test_verification_of_other_inputs_is_refused(images: Any, message: str) -> None:
    task = _task()
    task.threshold = 0.5
    with pytest.raises(ValueError, match=message):
        task.verify(torch.rand(1, 3, 32, 32), images)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "arcface"}, "`loss` to be triplet, contrastive or nt_xent, but got 'arcface'"),
        ({"loss": "nt_xent", "margin": 0.1}, "no `margin` with the nt_xent loss, but got 0.1"),
        ({"temperature": 0.1}, "no `temperature` with the triplet loss, but got 0.1"),
        ({"loss": "contrastive", "temperature": 0.1}, "no `temperature` with the contrastive loss, but got 0.1"),
        ({"margin": -0.1}, "`margin` to be at least 0, but got -0.1"),
        ({"embedding_size": 0}, "`embedding_size` to be at least 1, but got 0"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _task(**settings)


def test_targets_that_are_not_class_indices_are_refused(tmp_path: Path) -> None:
    data = TensorDataset(torch.rand(8, 3, 32, 32), torch.rand(8, 2))
    with pytest.raises(ValueError, match=r"class indices \(b,\), but got \(4, 8\) and torch.float32 of \(4, 2\)"):
        trainer_for(tmp_path, []).fit(_task(), DataLoader(data, 4))
