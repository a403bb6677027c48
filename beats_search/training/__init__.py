"""Training: a model and data in, a trained model and its curve out."""
