"""Magnitude pruning: a trained model in, the same one with its smallest weights at zero out, recovered around them."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from beats_search.compression._layers import matching, weighted_layers
from beats_search.tensors.seams import Bench

__all__ = ["MagnitudePruning"]

_ROUNDING = 1e-9


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class MagnitudePruning:
    """Set the smallest weights to zero: files compress better when zipped, neither latency nor `size_kb` gains.

    A `ratio` of the weights of every convolution and linear layer is zero and stays so during
    recovery; `layers` limits it by name. With `scope: global` the weights of all these layers are
    ranked together (Han et al. 2015). onnxruntime multiplies by zeros as by any number, and an ONNX
    file holds them all: for latency and size there are channel_pruning and quantization.
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
        masked = _masked(model, kept)
        if self.recovery_epochs:
            masked = bench.fine_tune(masked, self.recovery_epochs)
        return _unmasked(masked, model, kept)

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


@final
class _Mask(nn.Module):
    """Weights in, the same out, zero where they are not kept; whatever trains them trains around the zeros."""

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", kept)

    def forward(self, weight: Tensor) -> Tensor:
        kept: Tensor = self.get_buffer("kept")
        return torch.where(kept, weight, 0.0)


def _masked(model: nn.Module, kept: Mapping[str, Tensor]) -> nn.Module:
    masked = copy.deepcopy(model).eval()
    for name, mask in kept.items():
        parametrize.register_parametrization(masked.get_submodule(name), "weight", _Mask(mask))
    return masked


def _unmasked(masked: nn.Module, model: nn.Module, kept: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of `model` with the weights that `masked` computes with."""
    for name in kept:
        parametrize.remove_parametrizations(masked.get_submodule(name), "weight")
    plain = copy.deepcopy(model).eval()
    plain.load_state_dict(masked.state_dict())
    return plain
