"""Search: what to try next. Knows plans and outcomes, and nothing of tensors."""
