"""Small layers that heads and decoders are made of."""

from .pooling import AdaptiveConcatPool2d
from .sigmoid_range import SigmoidRange

__all__ = ["AdaptiveConcatPool2d", "SigmoidRange"]
