"""Heads that are put on an encoder."""

from .dense import DenseUpsample, create_dense_head
from .pooled import create_head, init_head, split_pooling

__all__ = ["DenseUpsample", "create_dense_head", "create_head", "init_head", "split_pooling"]
