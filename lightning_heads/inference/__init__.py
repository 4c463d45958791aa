"""Inference with trained tasks."""

from .tta import TestTimeAugmentation

__all__ = ["TestTimeAugmentation"]
