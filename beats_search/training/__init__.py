"""Training: a model, data and a plan in; a trained copy of the model out."""
