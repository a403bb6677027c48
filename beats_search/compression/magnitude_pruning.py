"""Magnitude pruning: a trained model in, the same one with its smallest weights at zero out, recovered around them."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn

from beats_search.compression._layers import matching, weighted_layers
from beats_search.tensors.seams import Bench
from beats_search.tensors.zeros import keeping_zeros

__all__ = ["MagnitudePruning"]

_ROUNDING = 1e-9


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MagnitudePruning:
    """Set the smallest weights to zero: files compress better when zipped, latency does not gain.

    A `ratio` of the weights of every convolution and linear layer is zero and stays so in all training
    that follows; `layers` limits it by name. With `scope: global` the weights of all these layers are
    ranked together (Han et al. 2015). onnxruntime multiplies by zeros as by any number, and an ONNX
    file holds them all: for latency and size there are channel_pruning and quantization. (A layer of which
    a global ranking leaves next to nothing, quantized after that, may need fewer bits for what is left.)
    """

    ratio: float
    layers: tuple[str, ...] = ("*",)
    scope: Literal["per_layer", "global"] = "per_layer"
    recovery_epochs: int = 0

    def __post_init__(self) -> None:
        """Refuse to remove everything, and other nonsense."""
        if not 0 <= self.ratio < 1:
            raise ValueError(f"ratio needs to be at least 0 and below 1, got {self.ratio}")
        if self.recovery_epochs < 0:
            raise ValueError(f"recovery_epochs needs to be at least 0, got {self.recovery_epochs}")
        if not self.layers:
            raise ValueError("layers needs at least one name or pattern, got none")

    @property
    def unforeseen(self) -> frozenset[str]:
        """What depends on trained weights: how many bits are enough for a layer, where layers compete."""
        return frozenset({"size_kb"}) if self.ratio and self.scope == "global" else frozenset()

    @property
    def zeros_stay(self) -> bool:
        """Whether every later training has to keep the zeros."""
        return self.ratio > 0

    def apply(self, model: nn.Module, bench: Bench) -> nn.Module:
        """Return a copy with zeros among its weights, recovered; the model itself where the ratio leaves none.

        Raises ValueError when no layer has a name that `layers` matches.
        """
        if not self.ratio:
            return model
        layers = weighted_layers(model)
        weights = {name: layers[name].weight.detach() for name in matching(layers, self.layers)}
        kept = self._kept(weights)
        if all(bool(each.all()) for each in kept.values()):
            return model
        pruned = _with_zeros(model, kept)
        return keeping_zeros(bench.fine_tune)(pruned, self.recovery_epochs) if self.recovery_epochs else pruned

    def _kept(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return which weights of each layer stay, as bool."""
        if self.scope == "per_layer":
            return {name: self._largest(weight.flatten()).view_as(weight) for name, weight in weights.items()}
        together = self._largest(torch.cat([weight.flatten() for weight in weights.values()]))
        split = torch.split(together, [weight.numel() for weight in weights.values()])
        return {name: kept.view_as(weight) for (name, weight), kept in zip(weights.items(), split, strict=True)}

    def _largest(self, weights: Tensor) -> Tensor:
        kept = torch.ones(len(weights), dtype=torch.bool)
        kept[weights.abs().argsort(stable=True)[: int(self.ratio * len(weights) + _ROUNDING)]] = False
        return kept


def _with_zeros(model: nn.Module, kept: Mapping[str, Tensor]) -> nn.Module:
    pruned = copy.deepcopy(model).eval()
    for name, mask in kept.items():
        pruned.get_submodule(name).get_parameter("weight").detach().mul_(mask)
    return pruned
