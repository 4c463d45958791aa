"""Models: an encoder with what a task puts on it, as plain `nn.Module`s."""

from .image import ImageModel

__all__ = ["ImageModel"]
