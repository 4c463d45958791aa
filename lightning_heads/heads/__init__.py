"""Heads: map the features of an encoder to outputs."""

from .dense import DenseUpsample, create_dense_head
from .pooled import apply_after_pooling, apply_pooling, create_head, init_head, split_pooling

__all__ = [
    "DenseUpsample",
    "apply_after_pooling",
    "apply_pooling",
    "create_dense_head",
    "create_head",
    "init_head",
    "split_pooling",
]
