"""Tasks: LightningModules that train a model."""

from .base import TransferModule
from .classification import ImageClassifier
from .metric_learning import ImageEmbedder
from .pairs import PairClassifier
from .regression import ImageRegressor
from .restoration import ImageRestorer
from .segmentation import ImageSegmenter

__all__ = [
    "ImageClassifier",
    "ImageEmbedder",
    "ImageRegressor",
    "ImageRestorer",
    "ImageSegmenter",
    "PairClassifier",
    "TransferModule",
]
