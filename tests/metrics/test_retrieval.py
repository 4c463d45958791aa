"""Retrieval metrics, compared with scikit-learn's and, where similarities tie, with the mean over all orders."""

from itertools import permutations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from lightning_heads.metrics import retrieval
from lightning_heads.metrics.retrieval import RecallAtK, RetrievalMAP


def _recall(embeddings: Tensor, labels: Tensor, k: int) -> float:
    neighbors = NearestNeighbors(n_neighbors=min(k, len(labels) - 1), metric="cosine").fit(embeddings)
    found = labels[torch.from_numpy(neighbors.kneighbors(return_distance=False))] == labels[:, None]
    alone = torch.bincount(labels)[labels] == 1
    return found.any(dim=1)[~alone].double().mean().item()


def _mean_average_precision(embeddings: Tensor, labels: Tensor) -> float:
    unit = embeddings.double() / embeddings.double().norm(dim=1, keepdim=True)
    scores = []
    for i in range(len(labels)):
        others = torch.arange(len(labels)) != i
        relevant = (labels == labels[i])[others]
        if relevant.any():
            scores.append(average_precision_score(relevant, (unit @ unit[i])[others]))
    return float(np.mean(scores))


def _mean_over_orders(embeddings: Tensor, labels: Tensor, ks: tuple[int, ...]) -> list[float]:
    """Returns the mean recall at each k and average precision of all orders of samples of equal similarity."""
    scores = []
    for query in range(len(labels)):
        others = [i for i in range(len(labels)) if i != query]
        similarity = torch.cosine_similarity(embeddings[query], embeddings, dim=1).round(decimals=4).tolist()
        for order in permutations(others):
            ranked = sorted(order, key=similarity.__getitem__, reverse=True)
            ranks = [rank for rank, i in enumerate(ranked, 1) if labels[i] == labels[query]]
            if ranks:
                precision = sum(hits / rank for hits, rank in enumerate(ranks, 1)) / len(ranks)
                scores.append([*(float(ranks[0] <= k) for k in ks), precision])
    return [float(x) for x in np.mean(scores, axis=0)]


@pytest.mark.parametrize("block", [1, 100, 2**24])
@pytest.mark.parametrize(("size", "classes"), [(40, 5), (31, 20), (6, 2)])
def test_retrieval_equals_scikit_learns(monkeypatch: pytest.MonkeyPatch, size: int, classes: int, block: int) -> None:
    monkeypatch.setattr(retrieval, "_BLOCK", block)
    labels = torch.randint(classes, (size,))
    embeddings = 3 * torch.rand(size, 1) * (torch.randn(size, 8) + torch.randn(classes, 8)[labels])
    metrics = MetricCollection({"1": RecallAtK(1), "5": RecallAtK(5), "50": RecallAtK(50), "map": RetrievalMAP()})
    for some, of in zip(embeddings.split(7), labels.split(7), strict=True):
        metrics.update(some, of)
    scores = metrics.compute()
    for k in (1, 5, 50):
        assert scores[str(k)].item() == pytest.approx(_recall(embeddings, labels, k), abs=1e-6)
    assert scores["map"].item() == pytest.approx(_mean_average_precision(embeddings, labels), abs=1e-6)
    assert len(metrics.compute_groups) == 1  # so that the embeddings are stored once


def test_images_that_are_alone_in_their_class_are_not_queries() -> None:
    embeddings, labels = torch.randn(5, 4), torch.arange(5)
    opposite = torch.tensor([[1.0, 0], [-1, 0], [0, 1], [0, 1]])
    for metric, expected in ((RecallAtK(1), 0), (RetrievalMAP(), 1 / 3)):
        assert metric(embeddings, labels).isnan()
        assert metric(embeddings[:1], labels[:1]).isnan()
        assert metric(opposite, torch.tensor([0, 0, 1, 2])).item() == pytest.approx(expected)
    with pytest.raises(ValueError, match="`k` to be at least 1, but got 0"):
        RecallAtK(0)


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2], [0, 1, 0, 1, 0], [0, 1, 1, 1, 1]], ids=str)
@pytest.mark.parametrize(
    "points",
    [
        [[1, 0]] * 5,
        [[0, 0]] * 5,
        [[1, 0], [1, 0], [1, 0], [0, 1], [1, 1]],
        [[1, 0], [0, 1], [3, 0], [0, 2], [0, 0]],
    ],
    ids=["equal", "zero", "three", "two"],
)
def test_ties_count_as_the_mean_over_their_orders(points: list[list[float]], labels: list[int]) -> None:
    embeddings, classes, ks = torch.tensor(points, dtype=torch.float32), torch.tensor(labels), (1, 2, 3, 9)
    scores = [metric(embeddings, classes).item() for metric in (*(RecallAtK(k) for k in ks), RetrievalMAP())]
    assert scores == pytest.approx(_mean_over_orders(embeddings, classes, ks), abs=1e-6)


@pytest.mark.parametrize("size", [8, 512])
def test_collapsed_embeddings_have_the_score_of_chance(size: int) -> None:
    labels = torch.arange(300) // 30  # sorted, as folders are
    embeddings = torch.randn(size) * (0.1 + torch.rand(300, 1))  # of one direction up to rounding
    assert RecallAtK(1)(embeddings, labels).item() == pytest.approx(29 / 299, abs=1e-6)
    missed = np.prod([(270 - i) / (299 - i) for i in range(5)])
    assert RecallAtK(5)(embeddings, labels).item() == pytest.approx(1 - missed, abs=1e-6)
    assert RetrievalMAP()(embeddings, labels) < 0.12


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("metric", [RecallAtK(1), RecallAtK(5), RetrievalMAP()])
def test_embeddings_that_are_not_finite_have_no_score(metric: Metric, value: float) -> None:
    labels = torch.arange(20) % 4
    for broken in (torch.full((20, 3), value), torch.randn(20, 3).index_fill(0, torch.tensor(7), value)):
        assert metric(broken, labels).isnan()
    assert metric(torch.randn(20, 3), labels).isfinite()
