"""Scores of segmentations with NaN; other scores are compared with scikit-learn's in the tests of the task."""

from typing import Literal

import pytest
import torch

from lightning_heads.metrics.segmentation import SegmentationScore


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("name", ["iou", "dice", "accuracy"])
def test_predictions_that_are_nan_have_no_score(name: Literal["iou", "dice", "accuracy"], multilabel: bool) -> None:
    score = SegmentationScore(name, 2, multilabel=multilabel)
    target = torch.randint(2, (3, 2, 4, 5) if multilabel else (3, 4, 5))
    sound = torch.rand(3, 2, 4, 5)
    for broken in (torch.full_like(sound, torch.nan), sound.index_fill(3, torch.tensor(2), torch.nan)):
        score.update(sound, target)
        score.update(broken, target)
        assert score.compute().isnan()
        assert score.per_class().isnan().all()
        score.reset()
        assert score(sound, target).isfinite()
