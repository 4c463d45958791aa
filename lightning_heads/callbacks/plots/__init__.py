"""Callbacks that draw predictions."""
