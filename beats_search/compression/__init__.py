"""Compression: one file, one technique, a model and a bench in, a smaller model out."""
