"""Models: one file, one family of networks."""
