"""Figures, class colors and contact sheets."""
