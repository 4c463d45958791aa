"""Caches the features of a frozen encoder."""
