"""Encoders: pretrained backbones without their classifiers, as feature extractors."""

from .build import create_body, model_meta
from .encoder import Encoder, as_encoder
from .meta import EncoderMeta
from .surgery import set_in_channels

__all__ = ["Encoder", "EncoderMeta", "as_encoder", "create_body", "model_meta", "set_in_channels"]
