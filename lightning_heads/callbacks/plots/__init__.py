"""Callbacks that plot predictions."""
