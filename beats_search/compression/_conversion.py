"""Conversion: a float model and images in, the same model on fixed or on learned integer grids out."""

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias, TypeVar

import torch
from torch import Tensor, fx, nn

from beats_search.compression._grids import Observer, activation_grid, weight_scale
from beats_search.compression._placement import Placement, Site, place
from beats_search.compression._rewriting import rewrite
from beats_search.tensors.fake_quant import ActivationQuantizer, QuantizedConv2d, QuantizedLinear, QuantizedWeight
from beats_search.tensors.graph import Layer, fold_batch_norms, merge_batch_norms, module_of, tensor_shapes, traced
from beats_search.tensors.learned_quant import LearnedGrid, LearnedLayer, NormedLayer

Bits: TypeAlias = int | Sequence[int]
"""Of the weights: of all layers but the first and the last, which have 8, or of each layer in the order of calls."""

_ENDS: Final = 8

_Grid = TypeVar("_Grid", ActivationQuantizer, LearnedGrid)

_Ends: TypeAlias = tuple[Tensor, Tensor | None]
"""The steps of a layer's input and of its output, None where that stays float."""


def quantize(model: nn.Module, images: Tensor, bits: Bits = 8) -> fx.GraphModule:
    """Return a copy of the model in which every layer that can be is an integer layer.

    `images` (n, …) are float as the user has them; their activations set the ranges. Raises
    TrialError when the model has no static graph.
    """
    graph = fold_batch_norms(traced(copy.deepcopy(model).cpu()))
    return _on_grids(graph, images, bits, lambda grid, _: grid, _integer_layer)


def learn_grids(model: nn.Module, images: Tensor, bits: Bits = 8) -> fx.GraphModule:
    """Return a copy of the model that trains on integer grids, which begin where `quantize` would put them.

    Batch norms stay live, so that training goes on as it was; `freeze` folds them.
    """
    graph = merge_batch_norms(traced(copy.deepcopy(model).cpu()), NormedLayer)
    return _on_grids(graph, images, bits, lambda grid, site: LearnedGrid(grid, limit=site.limit), _learned_layer)


def freeze(learned: nn.Module) -> nn.Module:
    """Return a copy of a model that `learn_grids` made, as trained since, in which all grids are fixed."""
    graph = copy.deepcopy(learned)
    if not isinstance(graph, fx.GraphModule):
        raise TypeError(f"grids are fixed in the graph that learned them, got {type(learned).__name__}")
    modules = dict(graph.named_modules())
    for node in graph.graph.nodes:
        match module_of(node, modules), [module_of(source, modules) for source in node.all_input_nodes]:
            case LearnedLayer() as layer, [LearnedGrid() as grid]:
                graph.set_submodule(str(node.target), layer.frozen(grid.scale.detach(), _step_after(node, modules)))
    for name, module in modules.items():
        if isinstance(module, LearnedGrid):
            graph.set_submodule(name, module.frozen())
    return graph.eval()


def _on_grids(
    graph: fx.GraphModule,
    images: Tensor,
    bits: Bits,
    make_grid: Callable[[ActivationQuantizer, Site], _Grid],
    make_layer: Callable[[nn.Module, _Ends, int], nn.Module],
) -> fx.GraphModule:
    """Put a grid that fits the images after every site, and layers on grids into the place of all others, in place."""
    placement = place(rewrite(graph), tensor_shapes(graph, images[:2]))
    observers = _insert_observers(graph, placement)
    with torch.inference_mode():
        graph(images)
    grids: dict[str, _Grid] = {}
    for site, (name, seen) in zip(placement.sites, observers.items(), strict=True):
        grids[name] = make_grid(activation_grid(seen, positive=site.positive, limit=site.limit), site)
        graph.set_submodule(name, grids[name])
    _replace_layers(graph, placement, _dealt(bits, len(placement.layers)), grids, make_layer)
    return graph.eval()


def _insert_observers(graph: fx.GraphModule, placement: Placement) -> dict[str, Observer]:
    """Put an observer after every site, and the same one after each node that keeps its grid."""
    observers = {f"grid_{index}": Observer() for index in range(len(placement.sites))}
    for (name, observer), site in zip(observers.items(), placement.sites, strict=True):
        graph.add_submodule(name, observer)
        for node in (site.node, *(kept for kept, source in placement.same_grid.items() if source is site.node)):
            _call_after(graph, node, name)
    graph.recompile()
    return observers


def _call_after(graph: fx.GraphModule, node: fx.Node, name: str) -> None:
    with graph.graph.inserting_after(node):
        observed = graph.graph.call_module(name, (node,))
    node.replace_all_uses_with(observed, delete_user_cb=lambda user: user is not observed)


def _dealt(bits: Bits, count: int) -> Sequence[int]:
    """Return the bits of each layer."""
    if not isinstance(bits, int):
        return bits
    return [_ENDS if index in (0, count - 1) else bits for index in range(count)]


def _replace_layers(
    graph: fx.GraphModule,
    placement: Placement,
    bits: Sequence[int],
    grids: dict[str, _Grid],
    make: Callable[[nn.Module, _Ends, int], nn.Module],
) -> None:
    """Make every call of a layer a layer on grids of its own: its bias fits the grid of its own input."""
    modules = dict(graph.named_modules())
    calls = Counter(node.target for node in placement.layers)
    for index, node in enumerate(placement.layers):
        layer, grid = modules[str(node.target)], grids[str(node.all_input_nodes[0].target)]
        if calls[node.target] > 1:
            node.target = f"layer_{index}"
        ends = grid.scale.detach(), _step_after(node, modules)
        graph.add_submodule(str(node.target), make(layer, ends, bits[index]))
    graph.delete_all_unused_submodules()
    graph.recompile()


def _step_after(node: fx.Node, modules: Mapping[str, nn.Module]) -> Tensor | None:
    """Return the step of the grid that a layer's output goes to, alone or through its ReLU; None for logits."""
    for _ in ("the grid", "a ReLU and the grid"):
        if len(node.users) != 1:
            return None
        (node,) = node.users
        match module_of(node, modules):
            case ActivationQuantizer() | LearnedGrid() as grid:
                return grid.scale.detach()
    return None


def _integer_layer(layer: nn.Module, ends: _Ends, bits: int) -> nn.Module:
    (plain, _), (input_scale, output_scale) = _parts(layer), ends
    bias = torch.zeros(len(plain.weight)) if plain.bias is None else plain.bias.detach()
    scale = weight_scale(plain.weight, bits)
    weight = QuantizedWeight(
        plain.weight.detach(), bias, scale=scale, input_scale=input_scale, output_scale=output_scale, bits=bits
    )
    return QuantizedConv2d(plain, weight) if isinstance(plain, nn.Conv2d) else QuantizedLinear(weight)


def _learned_layer(layer: nn.Module, _: _Ends, bits: int) -> nn.Module:
    plain, norm = _parts(layer)
    return LearnedLayer(plain, norm, bits=bits, scale=weight_scale(plain.weight, bits))


def _parts(layer: nn.Module) -> tuple[Layer, nn.BatchNorm1d | nn.BatchNorm2d | None]:
    match layer:
        case NormedLayer(layer=plain, norm=norm):
            return plain, norm
        case nn.Conv2d() | nn.Linear():
            return layer, None
    raise TypeError(f"a layer on grids is a Conv2d or a Linear, got {type(layer).__name__}")
