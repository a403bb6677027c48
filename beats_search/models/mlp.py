"""MLP: flattened inputs to logits through fully connected layers of one width."""

import math
from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise
from typing import final

from torch import nn

from beats_search.tensors.activations import ACTIVATIONS, ActivationName

__all__ = ["Mlp"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Mlp:
    """Fully connected network: `depth` hidden layers of `width` units, each with activation and dropout."""

    width: int = 100
    depth: int = 1
    activation: ActivationName = "relu"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a network without hidden units, and one that drops all of them."""
        if self.width < 1 or self.depth < 1:
            raise ValueError(f"mlp needs width >= 1 and depth >= 1, got width={self.width}, depth={self.depth}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"mlp.dropout needs to be at least 0 and below 1, got {self.dropout}")

    def build(self, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        """Return an untrained network from (n, *input_shape), of any rank, to logits (n, classes)."""
        widths = (math.prod(input_shape), *(self.width,) * self.depth)
        layers: dict[str, nn.Module] = {"flatten": nn.Flatten()}
        for number, (inputs, outputs) in enumerate(pairwise(widths), start=1):
            layers[f"fc{number}"] = nn.Linear(inputs, outputs)
            layers[f"{self.activation}{number}"] = ACTIVATIONS[self.activation]()
            if self.dropout:
                layers[f"dropout{number}"] = nn.Dropout(self.dropout)
        layers[f"fc{self.depth + 1}"] = nn.Linear(self.width, classes)
        return nn.Sequential(OrderedDict(layers))
