"""Data modules of degraded and original images."""
