"""Losses of dense predictions and of images."""

from .features import FeatureLoss, StyleLoss
from .segmentation import (
    CrossEntropyLoss,
    DiceLoss,
    FocalLoss,
    SegmentationLoss,
    TverskyLoss,
    WeightedSum,
    segmentation_loss,
)
from .structural import SSIMLoss

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
