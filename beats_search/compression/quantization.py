"""Quantization: a trained float model in, the same model on integer grids out, ready for int8 kernels.

Post-training: ranges are observed on training images, weights get the step of least squared error.
"""

import copy
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor, fx, nn

from beats_search.compression._grids import Observer, activation_grid, weight_scale
from beats_search.compression._placement import Placement, place, pools_globally
from beats_search.tensors.data import to_float
from beats_search.tensors.fake_quant import (
    ActivationQuantizer,
    GlobalAveragePool,
    QuantizedConv2d,
    QuantizedLinear,
    QuantizedWeight,
)
from beats_search.tensors.graph import fold_batch_norms, module_of, tensor_shapes, traced
from beats_search.tensors.seams import Bench

__all__ = ["Quantization"]

_FULL_PRECISION = 32


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """Integer weights and activations after training: 8 bits, or 32 to leave the model as it is."""

    bits: Literal[32, 8] = 8
    calibration_images: int = 512

    closes: ClassVar[bool] = True
    """Nothing may come after it: the grids fit the weights as they are."""

    def __post_init__(self) -> None:
        """Refuse an observation of nothing."""
        if self.calibration_images < 1:
            raise ValueError(f"calibration_images needs to be at least 1, got {self.calibration_images}")

    def apply(self, model: nn.Module, bench: Bench) -> nn.Module:
        """Return a copy of the model on integer grids; raises TrialError when it has no static graph."""
        if self.bits == _FULL_PRECISION:
            return model
        return quantize(model, self._images(bench))

    def _images(self, bench: Bench) -> Tensor:
        """Return training images drawn at random, for a data set may be sorted by class."""
        train = bench.data.train
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(bench.seed))
        return to_float(train.inputs[order[: self.calibration_images]])


def quantize(model: nn.Module, images: Tensor) -> nn.Module:
    """Return a copy of the model in which every layer that can be is an integer layer.

    `images` (n, …) are float as the user has them; their activations set the ranges.
    """
    graph = fold_batch_norms(traced(copy.deepcopy(model).cpu()))
    _name_pools(graph)
    placement = place(graph, tensor_shapes(graph, images[:2]))
    observers = _insert_observers(graph, placement)
    with torch.inference_mode():
        graph(images)
    for site, name in zip(placement.sites, observers, strict=True):
        observer = graph.get_submodule(name)
        if isinstance(observer, Observer):
            graph.set_submodule(name, activation_grid(observer, positive=site.positive))
    _replace_layers(graph, placement)
    return graph.eval()


def _name_pools(graph: fx.GraphModule) -> None:
    modules = dict(graph.named_modules())
    for index, node in enumerate(graph.graph.nodes):
        if pools_globally(node, modules):
            name = f"global_pool_{index}"
            graph.add_submodule(name, GlobalAveragePool())
            node.op, node.target, node.args, node.kwargs = "call_module", name, node.args[:1], {}
    graph.recompile()


def _insert_observers(graph: fx.GraphModule, placement: Placement) -> list[str]:
    """Put an observer after every site, and the same one after each node that keeps its grid."""
    names = [f"grid_{index}" for index in range(len(placement.sites))]
    for name, site in zip(names, placement.sites, strict=True):
        graph.add_submodule(name, Observer())
        for node in (site.node, *(kept for kept, source in placement.same_grid.items() if source is site.node)):
            _call_after(graph, node, name)
    graph.recompile()
    return names


def _call_after(graph: fx.GraphModule, node: fx.Node, name: str) -> None:
    with graph.graph.inserting_after(node):
        observed = graph.graph.call_module(name, (node,))
    node.replace_all_uses_with(observed, delete_user_cb=lambda user: user is not observed)


def _replace_layers(graph: fx.GraphModule, placement: Placement) -> None:
    """Make every call of a layer an integer layer of its own: its bias fits the grid of its own input."""
    modules = dict(graph.named_modules())
    for index, node in enumerate(placement.layers):
        layer, grid = module_of(node, modules), module_of(node.all_input_nodes[0], modules)
        if isinstance(grid, ActivationQuantizer) and isinstance(layer, nn.Conv2d | nn.Linear):
            graph.add_submodule(f"layer_{index}", _integer_layer(layer, grid))
            node.target = f"layer_{index}"
    graph.delete_all_unused_submodules()
    graph.recompile()


def _integer_layer(layer: nn.Conv2d | nn.Linear, grid: ActivationQuantizer) -> nn.Module:
    bias = torch.zeros(len(layer.weight)) if layer.bias is None else layer.bias.detach()
    weight = QuantizedWeight(layer.weight.detach(), bias, scale=weight_scale(layer.weight), input_scale=grid.scale)
    return QuantizedConv2d(layer, weight) if isinstance(layer, nn.Conv2d) else QuantizedLinear(weight)
