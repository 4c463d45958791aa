"""Loaders and samplers that resume exactly."""
