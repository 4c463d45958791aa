"""Losses of dense predictions and of images."""

from .features import FeatureLoss, StyleLoss
from .segmentation import (
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    SegmentationLoss,
    TverskyLoss,
    segmentation_loss,
)
from .structural import SSIMLoss
from .weighted_sum import WeightedSum

__all__ = [
    "CrossEntropyLoss",
    "DiceLoss",
    "FeatureLoss",
    "FocalLoss",
    "SSIMLoss",
    "SegmentationLoss",
    "StyleLoss",
    "TverskyLoss",
    "WeightedSum",
    "segmentation_loss",
]
