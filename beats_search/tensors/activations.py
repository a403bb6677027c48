"""Activations: a name as users write it in, the module that computes it out."""

from collections.abc import Callable, Mapping
from typing import Final, Literal

from torch import nn

ActivationName = Literal["relu", "leaky_relu", "tanh", "sigmoid", "gelu"]

ACTIVATIONS: Final[Mapping[ActivationName, Callable[[], nn.Module]]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
}
"""Names and what makes the module, with torch's own defaults."""
