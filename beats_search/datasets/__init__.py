"""Data sets: one file, one data set."""
