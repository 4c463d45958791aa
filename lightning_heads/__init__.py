"""fastai's application architectures as a PyTorch Lightning plugin."""

__version__ = "0.1.0"

from .encoders import Encoder, EncoderMeta, create_body, model_meta
from .heads import create_head
from .layers import AdaptiveConcatPool2d

__all__ = ["AdaptiveConcatPool2d", "Encoder", "EncoderMeta", "create_body", "create_head", "model_meta"]
