"""Layers: a network and patterns in, the names of the layers that a technique may change out."""

import copy
import fnmatch
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from beats_search.tensors.network import own_name

Layers = Mapping[str, nn.Conv2d | nn.Linear]
"""Layers by their names in the model, in the order of its definition or of its computation."""


def weighted_layers(model: nn.Module) -> Layers:
    """Return every convolution and linear layer."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)}


def hidden_layers(model: nn.Module, example: Tensor) -> Layers:
    """Return the layers that run on `example`, one input with its batch dimension, in their order, but the last one."""
    ran: list[str] = []
    observed = copy.deepcopy(model).eval()
    for name, layer in weighted_layers(observed).items():
        layer.register_forward_hook(lambda *_, name=name: ran.append(name))
    with torch.inference_mode():
        observed(example)
    layers = weighted_layers(model)
    return {name: layers[name] for name in dict.fromkeys(ran) if name != ran[-1]}


def width_of(layer: nn.Conv2d | nn.Linear) -> int:
    """Return how many channels or features a layer puts out."""
    return layer.out_channels if isinstance(layer, nn.Conv2d) else layer.out_features


def matching(names: Iterable[str], patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names that a pattern matches, as in a shell and as the author of the network knows them.

    Raises ValueError when there is none, but for the pattern of all.
    """
    there = tuple(names)
    found = tuple(name for name in there if any(fnmatch.fnmatchcase(own_name(name), each) for each in patterns))
    if not found and patterns != ("*",):
        rule = f"layers={list(patterns)} matches no layer that can be pruned"
        raise ValueError(f"{rule}; there are: {', '.join(own_name(name) for name in there) or 'none'}")
    return found
