"""Callbacks for the Lightning Trainer."""

from .ema import EMA
from .exact_resume import ExactResume
from .mixing import MixUpCutMix
from .phase_plot import plot_schedule
from .phases import Phases
from .plan import Phase
from .plateau import Plateau
from .plots import ConfusionMatrixPlot, WorstPredictionsPlot
from .prediction_writer import PredictionWriter
from .recipes import FineTune, GradualUnfreeze, OneCycle

__all__ = [
    "EMA",
    "ConfusionMatrixPlot",
    "ExactResume",
    "FineTune",
    "GradualUnfreeze",
    "MixUpCutMix",
    "OneCycle",
    "Phase",
    "Phases",
    "Plateau",
    "PredictionWriter",
    "WorstPredictionsPlot",
    "plot_schedule",
]
