"""Weights of other libraries."""

from .fastai_unet import load_fastai_unet

__all__ = ["load_fastai_unet"]
