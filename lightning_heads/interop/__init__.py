"""Loads weights of models that were trained with other libraries."""

from .fastai_unet import load_fastai_unet

__all__ = ["load_fastai_unet"]
