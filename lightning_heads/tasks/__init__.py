"""Tasks: LightningModules that train a model."""

from .base import TransferModule
from .image import ImageClassifier, ImageRegressor
from .restoration import ImageRestorer
from .segmentation import ImageSegmenter
from .tta import TestTimeAugmentation

__all__ = [
    "ImageClassifier",
    "ImageRegressor",
    "ImageRestorer",
    "ImageSegmenter",
    "TestTimeAugmentation",
    "TransferModule",
]
