"""Mean of a loss over a data set, compared with NumPy's average."""

import numpy as np
import pytest
import torch

from lightning_heads.metrics import MeanLoss


def test_it_is_the_sum_of_the_weighted_means_of_all_terms() -> None:
    mean, losses, weights = MeanLoss(), torch.rand(5, 2), torch.rand(5, 2) * 100
    for _ in range(2):
        for loss, weight in zip(losses, weights, strict=True):
            mean.update(loss, weight)
        expected = sum(np.average(losses[:, i], weights=weights[:, i]) for i in range(2))
        assert mean.compute().item() == pytest.approx(expected, rel=1e-6)
        mean.reset()


def test_a_batch_without_weight_does_not_count_even_if_its_loss_is_nan() -> None:
    mean = MeanLoss()
    mean.update(torch.tensor([torch.nan]), torch.tensor([0.0]))
    assert mean.compute().isnan()
    mean.update(torch.tensor([2.0]), torch.tensor([3.0]))
    assert mean.compute() == 2
    mean.update(torch.tensor([torch.nan]), torch.tensor([1.0]))
    assert mean.compute().isnan()


def test_a_term_without_weight_adds_nothing() -> None:
    mean = MeanLoss()
    mean.update(torch.tensor([2.0, 5.0]), torch.tensor([3.0, 0.0]))
    assert mean.compute() == 2


def test_many_pixels_are_summed_in_float32_in_a_model_of_half_precision() -> None:
    mean = torch.nn.ModuleList([MeanLoss()]).to(torch.float16)[0]
    for loss in (1.0, 2.0):
        mean.update(torch.tensor([loss]), torch.tensor([1e6]))
    assert mean.compute().item() == pytest.approx(1.5)
