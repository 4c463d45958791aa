"""Metrics that count, with predictions of NaN, which torchmetrics takes for a class."""

import pytest
import torch
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassF1Score, MultilabelAccuracy

from lightning_heads.metrics import PropagateNaN

TARGET = torch.tensor([0, 2, 1, 2])


@pytest.mark.parametrize("metric", [MulticlassAccuracy(3), MulticlassF1Score(3), MulticlassAUROC(3)])
def test_it_is_the_metric_or_nan(metric: Metric) -> None:
    predictions = torch.rand(4, 3).softmax(1)
    broken = predictions.index_fill(0, torch.tensor(1), torch.nan)
    wrapped = PropagateNaN(metric.clone())
    assert wrapped(predictions, TARGET) == metric(predictions, TARGET)
    assert wrapped(broken, TARGET).isnan()
    assert wrapped.compute().isnan()
    wrapped.reset()
    for some, of in zip(predictions.split(2), TARGET.split(2), strict=True):
        wrapped.update(some, of)
    assert wrapped.compute() == metric.compute()
    wrapped.update(broken, TARGET)
    assert wrapped.compute().isnan()


def test_metrics_of_a_collection_stay_apart() -> None:
    metrics = MetricCollection(
        {"accuracy": PropagateNaN(MultilabelAccuracy(2)), "macro": PropagateNaN(MultilabelAccuracy(2, threshold=0.9))}
    )
    predictions, target = torch.tensor([[0.8, 0.1], [0.95, 0.2]]), torch.tensor([[1, 0], [1, 0]])
    for _ in range(3):
        metrics.update(predictions, target)
    scores = {name: value.item() for name, value in metrics.clone().compute().items()}
    assert scores == {"accuracy": 1.0, "macro": 0.75}
