"""Cached features of a frozen encoder: data sets, storage and fingerprints."""
