"""Caching the features of a frozen encoder."""
