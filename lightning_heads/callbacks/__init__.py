"""Callbacks for the Lightning Trainer."""

from .mixing import MixUpCutMix
from .phases import Phases
from .plan import Phase
from .plateau import Plateau
from .plots import ConfusionMatrixPlot, WorstPredictionsPlot
from .prediction_writer import PredictionWriter
from .random_state import RandomState
from .recipes import FineTune, GradualUnfreeze, OneCycle

__all__ = [
    "ConfusionMatrixPlot",
    "FineTune",
    "GradualUnfreeze",
    "MixUpCutMix",
    "OneCycle",
    "Phase",
    "Phases",
    "Plateau",
    "PredictionWriter",
    "RandomState",
    "WorstPredictionsPlot",
]
