"""Backbones made from timm's models."""
