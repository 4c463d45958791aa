"""Tasks: LightningModules that train a model."""

from .base import TransferModule
from .embedding import ImageEmbedder
from .image import ImageClassifier, ImageRegressor
from .pairs import PairClassifier
from .restoration import ImageRestorer
from .segmentation import ImageSegmenter
from .tta import TestTimeAugmentation

__all__ = [
    "ImageClassifier",
    "ImageEmbedder",
    "ImageRegressor",
    "ImageRestorer",
    "ImageSegmenter",
    "PairClassifier",
    "TestTimeAugmentation",
    "TransferModule",
]
