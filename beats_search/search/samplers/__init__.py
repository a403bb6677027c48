"""Samplers: one file, one way to choose the next trial."""
