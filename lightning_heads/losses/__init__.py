"""Losses of segmentation, image restoration and metric learning."""

from .metric_learning import ContrastiveLoss, NTXentLoss, TripletLoss
from .perceptual import FeatureLoss, StyleLoss
from .segmentation import CrossEntropyLoss, DiceLoss, FocalLoss, SegmentationLoss, TverskyLoss, segmentation_loss
from .ssim import SSIMLoss
from .weighted_sum import WeightedSum

__all__ = [
    "ContrastiveLoss",
    "CrossEntropyLoss",
    "DiceLoss",
    "FeatureLoss",
    "FocalLoss",
    "NTXentLoss",
    "SSIMLoss",
    "SegmentationLoss",
    "StyleLoss",
    "TripletLoss",
    "TverskyLoss",
    "WeightedSum",
    "segmentation_loss",
]
