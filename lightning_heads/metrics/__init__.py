"""Metrics that torchmetrics lacks."""

from .retrieval import RecallAtK, RetrievalMAP
from .segmentation import SegmentationScore
from .verification import EqualErrorRate

__all__ = ["EqualErrorRate", "RecallAtK", "RetrievalMAP", "SegmentationScore"]
