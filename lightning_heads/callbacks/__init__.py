"""Callbacks for the Lightning Trainer."""

from .ema import EMA
from .exact_resume import ExactResume
from .feature_cache.feature_cache import FeatureCache
from .mixup import MixUpCutMix
from .phases.phases import Phases
from .phases.plan import Phase
from .phases.plateau import Plateau
from .phases.plot import plot_schedule
from .phases.recipes import FineTune, GradualUnfreeze, OneCycle
from .plots.classification import ConfusionMatrixPlot, WorstPredictionsPlot
from .plots.masks import MaskPlot
from .plots.restoration import RestorationPlot
from .writers.images import ImageWriter
from .writers.masks import MaskWriter
from .writers.predictions import PredictionWriter

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
