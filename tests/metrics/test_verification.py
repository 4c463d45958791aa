"""Equal error rate, compared with scikit-learn's ROC curve."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_curve
from torch import Tensor

from lightning_heads.metrics.verification import EqualErrorRate


def _equal_error_rate(scores: Tensor, targets: Tensor) -> float:
    false_positive_rate, true_positive_rate, _ = roc_curve(targets, scores, drop_intermediate=False)
    # where the difference of false positive and false negative rate is 0
    return float(np.interp(0, false_positive_rate - (1 - true_positive_rate), false_positive_rate))


@pytest.mark.parametrize("size", [4, 25, 400])
@pytest.mark.parametrize("decimals", [1, 6])  # with many equal scores, and with few
def test_equal_error_rate_equals_scikit_learns_curve(size: int, decimals: int) -> None:
    for _ in range(10):
        targets = torch.randperm(size) < size // 3 + 1
        scores = (torch.randn(size) + targets).round(decimals=decimals)
        metric = EqualErrorRate()
        for some, of in zip(scores.split(7), targets.split(7), strict=True):
            metric.update(some, of)
        assert metric.compute().item() == pytest.approx(_equal_error_rate(scores, targets), abs=1e-6)


def test_equal_error_rate_of_probabilities_and_extreme_cases() -> None:
    targets = torch.tensor([0, 1, 1, 0])
    scores = torch.tensor([0.1, 0.7, 0.9, 0.2])
    assert EqualErrorRate()(torch.stack([1 - scores, scores], 1), targets) == 0
    assert EqualErrorRate()(-scores, targets.bool()) == 1
    assert EqualErrorRate()(torch.ones(4), targets) == 0.5
    assert EqualErrorRate()(scores, torch.zeros(4).bool()).isnan()
    assert EqualErrorRate()(scores, torch.ones(4).bool()).isnan()


@pytest.mark.parametrize("value", [1.0, torch.inf, -torch.inf])
def test_equal_scores_have_an_error_of_a_half_in_any_order(value: float) -> None:
    for targets in (torch.tensor([1, 1, 0, 0]), torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 0])):
        assert EqualErrorRate()(torch.full((4,), value), targets) == 0.5


def test_scores_that_are_nan_have_no_error_rate() -> None:
    targets = torch.tensor([0, 1, 1, 0])
    for scores in (torch.full((4,), torch.nan), torch.tensor([0.1, 0.7, torch.nan, 0.2])):
        assert EqualErrorRate()(scores, targets).isnan()
        assert EqualErrorRate()(torch.stack([1 - scores, scores], 1), targets).isnan()
