"""Metrics that torchmetrics lacks."""

from .mean_loss import MeanLoss
from .propagate_nan import PropagateNaN
from .retrieval import RecallAtK, RetrievalMAP
from .segmentation import SegmentationScore
from .verification import EqualErrorRate

__all__ = ["EqualErrorRate", "MeanLoss", "PropagateNaN", "RecallAtK", "RetrievalMAP", "SegmentationScore"]
