"""Samples as lists of files and targets, their splits, and csv files that list them."""
