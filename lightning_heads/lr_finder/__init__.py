"""Learning rate finder."""

from .curve import LRCurve
from .search import lr_find

__all__ = ["LRCurve", "lr_find"]
