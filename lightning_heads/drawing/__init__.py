"""Figures, colors and contact sheets."""
