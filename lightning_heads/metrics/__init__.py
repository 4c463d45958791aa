"""Metrics that torchmetrics lacks."""

from .embedding_verification import EmbeddingEqualErrorRate, VerificationAccuracy, VerificationThreshold
from .mean_loss import MeanLoss
from .propagate_nan import PropagateNaN
from .retrieval import RecallAtK, RetrievalMAP
from .segmentation import SegmentationScore
from .verification import EqualErrorRate

__all__ = [
    "EmbeddingEqualErrorRate",
    "EqualErrorRate",
    "MeanLoss",
    "PropagateNaN",
    "RecallAtK",
    "RetrievalMAP",
    "SegmentationScore",
    "VerificationAccuracy",
    "VerificationThreshold",
]
