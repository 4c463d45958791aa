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
    ImageWriter,
    MaskPlot,
    MaskWriter,
    MixUpCutMix,
    OneCycle,
    Phase,
    Phases,
    Plateau,
    PredictionWriter,
    RestorationPlot,
    WorstPredictionsPlot,
    plot_schedule,
)
from .data import (
    AugTransforms,
    Crappify,
    Degradation,
    Downscale,
    Grey,
    ImageData,
    ImageFolderData,
    ImageReadError,
    ImageTableData,
    MaskData,
    MaskFolderData,
    MaskReadError,
    MaskTableData,
    Noise,
    RestorationData,
    SeededLoader,
    mask_values,
    verify_images,
)
from .encoders import Encoder, EncoderMeta, create_body, model_meta
from .freezing import freeze, freeze_to, unfreeze
from .heads import create_dense_head, create_head
from .layers import AdaptiveConcatPool2d
from .losses import CrossEntropyLoss, DiceLoss, FeatureLoss, FocalLoss, SSIMLoss, StyleLoss, TverskyLoss
from .lr_curve import LRCurve
from .lr_find import lr_find
from .models import DenseModel, DynamicUnet, ImageModel, SiameseModel, load_fastai_unet
from .params import optimizer_groups, param_groups
from .schedules import Constant, Cycle, FlatCosine, Restarts, Shape
from .tasks import ImageClassifier, ImageRegressor, ImageRestorer, ImageSegmenter, TestTimeAugmentation, TransferModule

__all__ = [
    "EMA",
    "AdaptiveConcatPool2d",
    "AugTransforms",
    "ConfusionMatrixPlot",
    "Constant",
    "Crappify",
    "CrossEntropyLoss",
    "Cycle",
    "Degradation",
    "DenseModel",
    "DiceLoss",
    "Downscale",
    "DynamicUnet",
    "Encoder",
    "EncoderMeta",
    "ExactResume",
    "FeatureLoss",
    "FineTune",
    "FlatCosine",
    "FocalLoss",
    "GradualUnfreeze",
    "Grey",
    "ImageClassifier",
    "ImageData",
    "ImageFolderData",
    "ImageModel",
    "ImageReadError",
    "ImageRegressor",
    "ImageRestorer",
    "ImageSegmenter",
    "ImageTableData",
    "ImageWriter",
    "LRCurve",
    "MaskData",
    "MaskFolderData",
    "MaskPlot",
    "MaskReadError",
    "MaskTableData",
    "MaskWriter",
    "MixUpCutMix",
    "Noise",
    "OneCycle",
    "Phase",
    "Phases",
    "Plateau",
    "PredictionWriter",
    "Restarts",
    "RestorationData",
    "RestorationPlot",
    "SSIMLoss",
    "SeededLoader",
    "Shape",
    "SiameseModel",
    "StyleLoss",
    "TestTimeAugmentation",
    "TransferModule",
    "TverskyLoss",
    "WorstPredictionsPlot",
    "create_body",
    "create_dense_head",
    "create_head",
    "freeze",
    "freeze_to",
    "load_fastai_unet",
    "lr_find",
    "mask_values",
    "model_meta",
    "optimizer_groups",
    "param_groups",
    "plot_schedule",
    "unfreeze",
    "verify_images",
]
