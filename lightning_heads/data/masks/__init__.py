"""Data modules of images and segmentation masks."""
