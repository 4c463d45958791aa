"""Callbacks for the Lightning Trainer."""

from .one_cycle import OneCycle
from .plots import ConfusionMatrixPlot, WorstPredictionsPlot
from .prediction_writer import PredictionWriter

__all__ = ["ConfusionMatrixPlot", "OneCycle", "PredictionWriter", "WorstPredictionsPlot"]
