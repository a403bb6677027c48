"""Measuring: how fast, how good, how large, and on which machine."""
