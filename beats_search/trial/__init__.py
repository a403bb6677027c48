"""Trial: one plan in, one outcome out."""
