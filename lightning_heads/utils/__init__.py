"""Helpers that import no other part of the package: files, arguments, random state, tensors and module modes."""
