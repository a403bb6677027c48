"""Report: a run in, a page and its files out."""
