"""Tasks: LightningModules that train a model."""

from .base import TransferModule
from .image import ImageClassifier, ImageRegressor

__all__ = ["ImageClassifier", "ImageRegressor", "TransferModule"]
