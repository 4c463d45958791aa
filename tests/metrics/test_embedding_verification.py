"""Verification by embeddings, compared with scikit-learn."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_curve
from torch import Tensor

from lightning_heads.metrics import (
    EmbeddingEqualErrorRate,
    EqualErrorRate,
    VerificationAccuracy,
    VerificationThreshold,
    embedding_verification,
)

METRICS = [EmbeddingEqualErrorRate, VerificationAccuracy, VerificationThreshold]


def _samples(count: int = 120) -> tuple[Tensor, Tensor]:
    labels = torch.arange(count) % 5
    return torch.randn(5, 16)[labels] + 1.2 * torch.randn(count, 16), labels


def _pairs(embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the cosine similarity of each pair, and whether it is of one class."""
    first, second = torch.triu_indices(len(labels), len(labels), 1)
    return F.cosine_similarity(embeddings[first], embeddings[second]), labels[first] == labels[second]


def test_equals_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_verification, "_BLOCK", 1000)  # several blocks of rows
    embeddings, labels = _samples()
    cosines, same = _pairs(embeddings, labels)
    false_positive, true_positive, thresholds = roc_curve(same, cosines, drop_intermediate=False)
    accuracies = (true_positive + 1 - false_positive) / 2
    metrics = [metric() for metric in METRICS]
    for metric in metrics:
        for part in zip(embeddings.split(50), labels.split(50), strict=True):
            metric.update(*part)
    error_rate, accuracy, threshold = (metric.compute().item() for metric in metrics)
    assert error_rate == pytest.approx(EqualErrorRate()(cosines, same).item(), abs=1e-3)
    assert accuracy == pytest.approx(accuracies.max(), abs=1e-3)
    best = accuracies.argmax()
    assert thresholds[best + 1] - 1e-4 < threshold < thresholds[best] + 1e-4


@pytest.mark.parametrize("threshold", [-1.5, -1.0, -0.2, 0.0, 0.31234, 1.0, 1.5])
def test_accuracy_at_a_threshold(threshold: float) -> None:
    embeddings, labels = _samples()
    cosines, same = _pairs(embeddings, labels)
    accepted = (cosines > threshold).float()
    expected = (accepted[same].mean() + (1 - accepted[~same]).mean()) / 2
    torch.testing.assert_close(VerificationAccuracy(threshold)(embeddings, labels), expected, atol=1e-3, rtol=0)


def test_classes_that_are_far_apart_have_a_threshold_in_the_middle() -> None:
    embeddings, labels = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 1])
    assert [metric()(embeddings, labels).item() for metric in METRICS] == pytest.approx([0, 1, 0.5], abs=1e-4)


def test_equal_embeddings_are_a_guess() -> None:
    embeddings, labels = torch.ones(6, 4), torch.arange(6) % 2
    assert EmbeddingEqualErrorRate()(embeddings, labels) == 0.5
    assert VerificationAccuracy()(embeddings, labels) == 0.5


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("first", "labels"), [(torch.nan, [0, 0, 1]), (torch.inf, [0, 0, 1]), (1.0, [0, 0, 0]), (1.0, [0, 1, 2])]
)
def test_not_finite_or_one_kind_of_pair_is_nan(metric: type, first: float, labels: list[int]) -> None:
    embeddings = torch.tensor([[first, 0.0], [0.6, 0.8], [0.0, 1.0]])
    assert metric()(embeddings, torch.tensor(labels)).isnan()
