"""Rewriting: a traced model in, the same function out, in the operations that have integer kernels."""

import operator
from collections.abc import Mapping
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import fx, nn
from torchvision.ops import stochastic_depth

from beats_search.tensors.fake_quant import GlobalAveragePool, is_global_pool
from beats_search.tensors.graph import module_of

_IMAGE_AXES: Final = ((2, 3), (-2, -1))
_SILUS: Final = frozenset({nn.SiLU, F.silu})


def rewrite(model: fx.GraphModule) -> fx.GraphModule:
    """Name global pools as what they are, split SiLU in two, and leave out what does nothing, in place.

    A stochastic depth was traced in eval mode and lets all pass. A grid of its own behind another one
    would be lost in the file: ONNX Runtime makes one of two grids in a row, which training moves apart.
    """
    modules = dict(model.named_modules())
    for index, node in enumerate(list(model.graph.nodes)):
        with model.graph.inserting_before(node):
            replacement = _replacement(model, node, modules, f"global_pool_{index}")
        if replacement is not None:
            node.replace_all_uses_with(replacement)
            model.graph.erase_node(node)
    model.delete_all_unused_submodules()
    model.recompile()
    return model


def pools_globally(node: fx.Node, modules: Mapping[str, nn.Module]) -> bool:
    """Tell whether a node averages over height and width and keeps both as 1."""
    if node.target is F.adaptive_avg_pool2d:
        size = node.args[1] if len(node.args) > 1 else node.kwargs.get("output_size")
        return size in (1, (1, 1), [1, 1])
    return is_global_pool(module_of(node, modules))


def kind(node: fx.Node, modules: Mapping[str, nn.Module]) -> object:
    """Return what a node calls: a module's class, a function, or a method's name."""
    module = module_of(node, modules)
    return node.target if module is None else type(module)


def _replacement(model: fx.GraphModule, node: fx.Node, modules: Mapping[str, nn.Module], name: str) -> fx.Node | None:
    """Return what computes the same as a node, None where the node may stay."""
    if pools_globally(node, modules):
        return _pool(model, node.all_input_nodes[0], name)
    if _averages_images(node):
        pooled = _pool(model, node.all_input_nodes[0], name)
        return pooled if _keeps_axes(node) else model.graph.call_function(torch.flatten, (pooled, 1))
    if node.target is stochastic_depth:
        return node.all_input_nodes[0]
    if kind(node, modules) in _SILUS:
        return _silu(model, node.all_input_nodes[0])
    return None


def _averages_images(node: fx.Node) -> bool:
    if node.target not in ("mean", torch.mean):
        return False
    axes = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    return isinstance(axes, list | tuple) and tuple(axes) in _IMAGE_AXES


def _keeps_axes(node: fx.Node) -> bool:
    return bool(node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False))  # noqa: PLR2004 - torch's place for it


def _pool(model: fx.GraphModule, values: fx.Node, name: str) -> fx.Node:
    model.add_submodule(name, GlobalAveragePool())
    return model.graph.call_module(name, (values,))


def _silu(model: fx.GraphModule, values: fx.Node) -> fx.Node:
    gate = model.graph.call_function(torch.sigmoid, (values,))
    return model.graph.call_function(operator.mul, (values, gate))
