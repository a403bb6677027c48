"""Data sets: one file is one data set, from its settings to tensors in memory."""
