"""Folding: an ONNX graph whose weights are inputs in, the part that depends on weights alone and the rest out.

Values have no say in it: the part of the weights folds batch norms into the layers before them,
transposes, gathers and so on, whichever weights come.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

_LAYERS: Final = frozenset({"Conv", "Gemm"})
_NORM: Final = "BatchNormalization"
_NORM_EPSILON: Final = 1e-5
_STAY: Final = frozenset({
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear",  # they tell a runtime to compute in integers
    "ConstantOfShape", "Expand", "Tile", "Resize", "MatMul", "Gemm", "Einsum",  # they may make more of less
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli",
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The nodes that need nothing but weights and constants, and all others, each in order."""

    of_weights: Sequence[onnx.NodeProto]
    others: Sequence[onnx.NodeProto]


def fold_batch_norms(graph: onnx.GraphProto, weights: AbstractSet[str]) -> None:
    """Let the weights of every Conv and Gemm do what the batch norm that directly follows it does, in place.

    The weights, inputs of the graph, become inputs of nodes that compute the folded ones. A layer
    or a norm that is used more than once stays as it is: what fits one use breaks another.
    """
    layer_of = dict(_foldable(graph, weights))
    gone = {layer.output[0] for layer in layer_of.values()}
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in graph.input}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if (layer := layer_of.get(node.output[0])) is not None:
            nodes += _folded(layer, node, graph, rank=ranks[layer.input[1]])
        elif node.output[0] not in gone:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def part(graph: onnx.GraphProto, weights: AbstractSet[str]) -> Parts:
    """Tell the nodes that need weights alone from the others.

    A node of a weight that is needed elsewhere too is one of the others: the file would hold it twice.
    """
    uses = count_uses(graph)
    constants = {tensor.name for tensor in graph.initializer} | {""}
    known = {name for name in weights if uses[name] == 1}
    of_weights, others = [], []
    for node in graph.node:
        needed = set(node.input) - constants
        if needed and needed <= known and not _stays(node):
            of_weights.append(node)
            known.update(node.output)
        else:
            others.append(node)
    return Parts(of_weights=of_weights, others=others)


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a graph, and after each those of the graphs inside of it."""
    for node in graph.node:
        yield node
        for inner in _inner_graphs(node):
            yield from all_nodes(inner)


def count_uses(graph: onnx.GraphProto) -> Counter[str]:
    """Count how often each value is the input of a node or an output of the graph."""
    uses = Counter(name for node in all_nodes(graph) for name in node.input)
    uses.update(value.name for value in graph.output)
    return uses


def _inner_graphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs) if graph.node]


def _stays(node: onnx.NodeProto) -> bool:
    return node.op_type in _STAY or bool(node.domain) or bool(_inner_graphs(node))


def _foldable(graph: onnx.GraphProto, weights: AbstractSet[str]) -> Iterator[tuple[str, onnx.NodeProto]]:
    """Yield the output of every norm that can be folded, with the layer before it."""
    uses = count_uses(graph)
    layers = {node.output[0]: node for node in graph.node if node.op_type in _LAYERS}
    for norm in graph.node:
        layer = layers.get(norm.input[0]) if norm.op_type == _NORM else None
        if layer is None or _number(layer, "beta", 1) != 1:
            continue
        own = [*layer.input[1:], *norm.input[1:]]
        if weights >= set(own) and all(uses[name] == 1 for name in (norm.input[0], *own)):
            yield norm.output[0], layer


def _folded(layer: onnx.NodeProto, norm: onnx.NodeProto, graph: onnx.GraphProto, *, rank: int) -> list[onnx.NodeProto]:
    """Return the layer with folded weights, and before it the nodes that compute them.

    They are weight · scale and (bias - mean) · scale + beta, with scale = gamma / √(variance + epsilon).
    """
    weight, *bias = layer.input[1:]
    gamma, beta, mean, variance = norm.input[1:]
    shape = [-1, *[1] * (rank - 1)] if layer.op_type == "Conv" or _number(layer, "transB", 0) else [1, -1]
    nodes: list[onnx.NodeProto] = []

    def made(name: str, op_type: str, *inputs: str) -> str:
        nodes.append(helper.make_node(op_type, inputs, [f"{weight}.{name}"]))
        return f"{weight}.{name}"

    def constant(name: str, value: NDArray[np.generic]) -> str:
        graph.initializer.append(numpy_helper.from_array(value, f"{weight}.{name}"))
        return f"{weight}.{name}"

    epsilon = constant("epsilon", np.array(_number(norm, "epsilon", _NORM_EPSILON), np.float32))
    deviation = made("deviation", "Sqrt", made("variance", "Add", variance, epsilon))
    scale = made("scale", "Div", gamma, deviation)
    spread = made("spread", "Reshape", scale, constant("shape", np.array(shape, np.int64)))
    centred = made("centred", "Sub", bias[0], mean) if bias else made("centred", "Neg", mean)
    new_bias = made("folded_bias", "Add", made("scaled", "Mul", centred, scale), beta)
    new_weight = made("folded", "Mul", weight, spread)
    nodes.append(helper.make_node(layer.op_type, [layer.input[0], new_weight, new_bias], norm.output))
    nodes[-1].attribute.extend(layer.attribute)
    return nodes


def _number(node: onnx.NodeProto, name: str, default: float) -> float:
    found = [helper.get_attribute_value(attribute) for attribute in node.attribute if attribute.name == name]
    return float(found[0]) if found else default
