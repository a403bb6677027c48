"""Placement: a traced model in, the nodes after which activations are put on an integer grid out.

The quantizers stand exactly where a runtime requantizes: before the first layer, after each layer
with its ReLU, after each addition with its ReLU, after pooling; and not on the logits. Operations
that only move values keep the grid of their input.
"""

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import fx, nn

from beats_search.compression._rewriting import kind
from beats_search.tensors.fake_quant import UINT8_MAX
from beats_search.tensors.graph import module_of
from beats_search.tensors.learned_quant import NormedLayer

_RELUS: Final = frozenset({nn.ReLU, torch.relu, F.relu, "relu", "relu_"})
_RELU6S: Final = frozenset({F.relu6})
_SIX: Final = 6.0
_MOVES: Final = frozenset({
    nn.MaxPool2d, nn.Flatten, nn.Dropout, nn.Dropout2d, nn.Identity, nn.ChannelShuffle,
    torch.flatten, torch.reshape, torch.transpose, torch.permute, torch.chunk, torch.split,
    F.max_pool2d, torch.max_pool2d, F.dropout, operator.getitem,
    "flatten", "view", "reshape", "transpose", "permute", "contiguous", "chunk", "split", "squeeze", "unsqueeze",
})  # fmt: skip
_MATRIX_DIMENSIONS: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A grid to be observed after `node`; `positive` grids have their zero point at 0.

    `limit` is the largest step: a ReLU6 is fused into its layer only where the grid ends at 6 or before.
    """

    node: fx.Node
    positive: bool = False
    limit: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Which layers become integer layers, where grids are observed, and which nodes reuse a grid.

    The input of each of the `layers` is on a grid; a layer whose input is on none is not among them.
    """

    layers: tuple[fx.Node, ...]
    sites: tuple[Site, ...]
    same_grid: Mapping[fx.Node, fx.Node]


def place(model: fx.GraphModule, shapes: Mapping[fx.Node, torch.Size]) -> Placement:
    """Return the placement for a traced model whose batch norms are folded.

    `shapes` holds the shape at each node that yields a float tensor (`graph.tensor_shapes`).
    """
    modules = dict(model.named_modules())
    layers = tuple(node for node in model.graph.nodes if _is_integer_layer(node, modules, shapes))
    zone = _downstream(model, layers)
    sites: dict[fx.Node, Site] = {}
    same_grid: dict[fx.Node, fx.Node] = {}
    for node in model.graph.nodes:
        if node not in shapes:
            continue
        if node not in zone:
            if any(user in layers for user in node.users):
                sites[node] = Site(node=node)
        elif (source := _grid_source(node, modules, sites, same_grid)) is not None:
            same_grid[node] = source
        elif _needs_grid(node, modules):
            sites[node] = _site(node, modules)
    on_grids = tuple(node for node in layers if node.all_input_nodes[0] in sites.keys() | same_grid.keys())
    return Placement(layers=on_grids, sites=tuple(sites.values()), same_grid=same_grid)


def _is_integer_layer(node: fx.Node, modules: Mapping[str, nn.Module], shapes: Mapping[fx.Node, torch.Size]) -> bool:
    match module_of(node, modules):
        case nn.Conv2d(padding_mode="zeros") | NormedLayer(layer=nn.Conv2d(padding_mode="zeros")):
            return True
        case nn.Linear() | NormedLayer(layer=nn.Linear()):
            return node in shapes and len(shapes[node]) == _MATRIX_DIMENSIONS
    return False


def _downstream(model: fx.GraphModule, layers: tuple[fx.Node, ...]) -> set[fx.Node]:
    """Return the layers and all that is computed from them."""
    zone = set(layers)
    for node in model.graph.nodes:
        if any(source in zone for source in node.all_input_nodes):
            zone.add(node)
    return zone


def _grid_source(
    node: fx.Node,
    modules: Mapping[str, nn.Module],
    sites: Mapping[fx.Node, Site],
    same_grid: Mapping[fx.Node, fx.Node],
) -> fx.Node | None:
    """Return the site whose grid a moving operation keeps, None for all others."""
    while kind(node, modules) in _MOVES:
        node = node.all_input_nodes[0]
        if node in sites:
            return node
        if node in same_grid:
            return same_grid[node]
    return None


def _site(node: fx.Node, modules: Mapping[str, nn.Module]) -> Site:
    if _rectifies_to_six(node, modules):
        return Site(node=node, positive=True, limit=_SIX / UINT8_MAX)
    return Site(node=node, positive=kind(node, modules) in _RELUS)


def _rectifies_to_six(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    match module_of(node, modules):
        case nn.Hardtanh(min_val=0.0, max_val=6.0):  # and ReLU6, which is one
            return True
    return node.target in _RELU6S


def _needs_grid(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Tell whether what is on no grid yet goes to one: not what a ReLU follows, and not logits that stay float."""
    users = list(node.users)
    if len(users) == 1 and (kind(users[0], modules) in _RELUS or _rectifies_to_six(users[0], modules)):
        return False  # the ReLU is fused into this operation
    logits = all(user.op == "output" for user in users)
    return not (logits and (_is_linear(module_of(node, modules)) or kind(node, modules) in _MOVES))


def _is_linear(module: nn.Module | None) -> bool:
    return isinstance(module.layer if isinstance(module, NormedLayer) else module, nn.Linear)
