"""Seeded data loaders and samplers, which resume exactly in the middle of an epoch."""
