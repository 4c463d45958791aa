"""Tasks: LightningModules that train a model."""

from .base import TransferModule
from .image import ImageClassifier, ImageRegressor
from .tta import TestTimeAugmentation

__all__ = ["ImageClassifier", "ImageRegressor", "TestTimeAugmentation", "TransferModule"]
