"""Zeros: a training in, the same one in which the weights that are zero stay zero out."""

import copy
from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from beats_search.tensors.graph import Layer
from beats_search.tensors.plain_weights import fix_weights
from beats_search.tensors.seams import Distillation, FineTune


def keeping_zeros(train: FineTune) -> FineTune:
    """Return a training that keeps the zeros in the weights of convolutions and linear layers; the rest may change.

    What it returns is an ordinary network, of the same layers and names as the one that it was given.
    Layers that compute their weights from others are trained as they are.
    """

    def fine_tune(model: nn.Module, epochs: int, /, *, distillation: Distillation | None = None) -> nn.Module:
        masked = copy.deepcopy(model)
        layers = dict(_with_zeros(masked))
        orders = {name: [own for own, _ in layer.named_parameters(recurse=False)] for name, layer in layers.items()}
        for layer in layers.values():
            parametrize.register_parametrization(layer, "weight", _Mask(layer.weight.detach() != 0))
        trained = train(masked, epochs, distillation=distillation)
        fix_weights([trained.get_submodule(name) for name in orders])
        for name, order in orders.items():
            _order_parameters(trained.get_submodule(name), order)
        return trained

    return fine_tune


@final
class _Mask(nn.Module):
    """Weights in, the same out, zero where they are not kept; whatever trains them trains around the zeros."""

    def __init__(self, kept: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", kept)

    def forward(self, weight: Tensor) -> Tensor:
        kept: Tensor = self.get_buffer("kept")
        return torch.where(kept, weight, 0.0)


def _with_zeros(model: nn.Module) -> Iterator[tuple[str, Layer]]:
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear) or parametrize.is_parametrized(module):
            continue
        if not bool(module.weight.all()):
            yield name, module


def _order_parameters(layer: nn.Module, names: list[str]) -> None:
    """Put parameters into an order, in place: one that was masked comes last, and order is part of a structure."""
    for name in names:
        parameter = layer.get_parameter(name)
        delattr(layer, name)
        layer.register_parameter(name, parameter)
