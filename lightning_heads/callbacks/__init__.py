"""Callbacks for the Lightning Trainer."""

from .ema import EMA
from .exact_resume import ExactResume
from .feature_cache import FeatureCache
from .image_writer import ImageWriter
from .mask_plot import MaskPlot
from .mask_writer import MaskWriter
from .mixing import MixUpCutMix
from .phase_plot import plot_schedule
from .phases import Phases
from .plan import Phase
from .plateau import Plateau
from .plots import ConfusionMatrixPlot, WorstPredictionsPlot
from .prediction_writer import PredictionWriter
from .recipes import FineTune, GradualUnfreeze, OneCycle
from .restoration_plot import RestorationPlot

__all__ = [
    "EMA",
    "ConfusionMatrixPlot",
    "ExactResume",
    "FeatureCache",
    "FineTune",
    "GradualUnfreeze",
    "ImageWriter",
    "MaskPlot",
    "MaskWriter",
    "MixUpCutMix",
    "OneCycle",
    "Phase",
    "Phases",
    "Plateau",
    "PredictionWriter",
    "RestorationPlot",
    "WorstPredictionsPlot",
    "plot_schedule",
]
