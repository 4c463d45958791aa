"""Transforms of images: augmentation, resizing, degradation."""
