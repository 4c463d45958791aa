"""Data modules of pairs of images."""
