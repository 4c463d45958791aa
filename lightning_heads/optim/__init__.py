"""Parameter groups, freezing, and schedules of learning rates and momentum."""

from .freezing import NormPolicy, freeze, freeze_to, unfreeze
from .param_groups import LearningRate, Splitter, optimizer_groups, param_groups
from .schedules import Constant, Cycle, FlatCosine, Restarts, Shape

__all__ = [
    "Constant",
    "Cycle",
    "FlatCosine",
    "LearningRate",
    "NormPolicy",
    "Restarts",
    "Shape",
    "Splitter",
    "freeze",
    "freeze_to",
    "optimizer_groups",
    "param_groups",
    "unfreeze",
]
