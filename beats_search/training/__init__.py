"""Training: a model, data and a plan in; a trained copy of the model out. The Beats method, usable alone."""

from beats_search.tensors.beats_layers import BeatsConv2d, BeatsLinear
from beats_search.training.accumulation import Beats

__all__ = ["Beats", "BeatsConv2d", "BeatsLinear"]
