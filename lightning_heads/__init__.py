"""fastai's application architectures as a PyTorch Lightning plugin.

>>> import lightning_heads as lh
>>> task = lh.ImageClassifier("resnet18", num_classes=37, pretrained=False, lr=(1e-5, 1e-3))
"""

__version__ = "0.1.0"

from .callbacks import (
    EMA,
    ConfusionMatrixPlot,
    ExactResume,
    FineTune,
    GradualUnfreeze,
    MixUpCutMix,
    OneCycle,
    Phase,
    Phases,
    Plateau,
    PredictionWriter,
    WorstPredictionsPlot,
    plot_schedule,
)
from .data import AugTransforms, ImageData, ImageFolderData, ImageReadError, ImageTableData, SeededLoader, verify_images
from .encoders import Encoder, EncoderMeta, create_body, model_meta
from .freezing import freeze, freeze_to, unfreeze
from .heads import create_head
from .layers import AdaptiveConcatPool2d
from .lr_curve import LRCurve
from .lr_find import lr_find
from .models import ImageModel
from .params import optimizer_groups, param_groups
from .schedules import Constant, Cycle, FlatCosine, Restarts, Shape
from .tasks import ImageClassifier, ImageRegressor, TestTimeAugmentation, TransferModule

__all__ = [
    "EMA",
    "AdaptiveConcatPool2d",
    "AugTransforms",
    "ConfusionMatrixPlot",
    "Constant",
    "Cycle",
    "Encoder",
    "EncoderMeta",
    "ExactResume",
    "FineTune",
    "FlatCosine",
    "GradualUnfreeze",
    "ImageClassifier",
    "ImageData",
    "ImageFolderData",
    "ImageModel",
    "ImageReadError",
    "ImageRegressor",
    "ImageTableData",
    "LRCurve",
    "MixUpCutMix",
    "OneCycle",
    "Phase",
    "Phases",
    "Plateau",
    "PredictionWriter",
    "Restarts",
    "SeededLoader",
    "Shape",
    "TestTimeAugmentation",
    "TransferModule",
    "WorstPredictionsPlot",
    "create_body",
    "create_head",
    "freeze",
    "freeze_to",
    "lr_find",
    "model_meta",
    "optimizer_groups",
    "param_groups",
    "plot_schedule",
    "unfreeze",
    "verify_images",
]
