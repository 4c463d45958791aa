"""Look-alike search: a folder of images as an index of embeddings, and the nearest of it to an image."""

from .embedding import embed
from .look_alikes import LookAlikes, draw_look_alikes, look_alikes

__all__ = ["LookAlikes", "draw_look_alikes", "embed", "look_alikes"]
