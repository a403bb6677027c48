"""Runtimes: one file, one engine that runs exported models."""
