"""Image similarity search: embeds a folder of images into an index and finds the nearest neighbors of an image."""

from .embedding import embed
from .look_alikes import LookAlikes, draw_look_alikes, look_alikes

__all__ = ["LookAlikes", "draw_look_alikes", "embed", "look_alikes"]
