"""Data modules of single images."""
