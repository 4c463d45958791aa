"""fastai's application architectures as a PyTorch Lightning plugin.

>>> import lightning_heads as lh
>>> task = lh.ImageClassifier("resnet18", num_classes=37, pretrained=False, lr=(1e-5, 1e-3))
"""

__version__ = "0.1.0"

from .callbacks import ConfusionMatrixPlot, OneCycle, PredictionWriter, WorstPredictionsPlot
from .data import AugTransforms, ImageData, ImageFolderData, ImageReadError, ImageTableData, verify_images
from .encoders import Encoder, EncoderMeta, create_body, model_meta
from .heads import create_head
from .layers import AdaptiveConcatPool2d
from .models import ImageModel
from .params import param_groups
from .tasks import ImageClassifier, ImageRegressor, TransferModule

__all__ = [
    "AdaptiveConcatPool2d",
    "AugTransforms",
    "ConfusionMatrixPlot",
    "Encoder",
    "EncoderMeta",
    "ImageClassifier",
    "ImageData",
    "ImageFolderData",
    "ImageModel",
    "ImageReadError",
    "ImageRegressor",
    "ImageTableData",
    "OneCycle",
    "PredictionWriter",
    "TransferModule",
    "WorstPredictionsPlot",
    "create_body",
    "create_head",
    "model_meta",
    "param_groups",
    "verify_images",
]
