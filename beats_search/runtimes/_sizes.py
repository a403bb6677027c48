"""Sizes: a graph that was exported for layers of some sizes in, the same for layers of any sizes out.

The widths of layers are those of their weights. Beside these a graph of common operators names them
in two places only: where it flattens, and in the groups of depthwise convolutions.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

Sizes = Mapping[str, tuple[int, ...]]

_OF_ANY_SIZE: Final = frozenset({
    "Conv", "Gemm", "MatMul", "BatchNormalization", "QuantizeLinear", "DequantizeLinear",
    "Add", "Sub", "Mul", "Div", "Neg", "Sqrt", "Identity", "Cast",
    "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Softplus", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Erf",
    "Gelu", "Clip", "Softmax", "LogSoftmax",
    "ReduceMean", "ReduceMax", "ReduceSum", "ReduceL2",
    "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Flatten",
})  # fmt: skip
"""Operators that take the sizes of their inputs as they come, whatever their attributes; Conv but for its groups."""

_FLATTENED: Final = np.array([0, -1], np.int64)  # the batch as it comes, and all else in one dimension
_BATCH_AND_ALL_ELSE: Final = 2


def drop_sizes(body: onnx.GraphProto, derivation: onnx.GraphProto, sizes: Sizes) -> bool:
    """Let the nodes of a graph fit weights of any sizes, in place; return whether that can be said of all of them.

    `derivation` computes weights from others, of which `sizes` has the shapes. If not all nodes are
    known to fit, nothing changes.
    """
    flattening = set(_flattening(body))
    groups = all(_is_depthwise(node, body, derivation, sizes) for node in body.node if _group(node) is not None)
    fit = _fit(body, sizes.keys() | flattening | set(_axes(body))) and _fit(
        derivation, sizes.keys() | set(_spreading(derivation))
    )
    if not (groups and fit):
        return False
    for tensor in body.initializer:
        if tensor.name in flattening:
            tensor.CopyFrom(numpy_helper.from_array(_FLATTENED, tensor.name))
    for node in body.node:
        if not flattening.isdisjoint(node.input):
            del node.attribute[:]  # allowzero, with which 0 would mean a dimension without elements
    del body.value_info[:]
    return True


def fit_groups(graph: onnx.GraphProto) -> None:
    """Give every depthwise convolution as many groups as its weight has channels, in place."""
    channels = {tensor.name: tensor.dims[0] for tensor in graph.initializer if tensor.dims}
    quantized = _quantized(graph)
    for node in graph.node:
        if (group := _group(node)) is not None:
            group.i = channels[quantized.get(node.input[1], node.input[1])]


def _fit(graph: onnx.GraphProto, known: AbstractSet[str]) -> bool:
    """Tell whether all nodes take any sizes, where some tensors are known to do."""
    constants = {tensor.name for tensor in graph.initializer if math.prod(tensor.dims) > 1} - known
    for node in graph.node:
        takes_any = node.op_type in _OF_ANY_SIZE or (node.op_type == "Reshape" and node.input[1] in known)
        if node.domain or not takes_any or not constants.isdisjoint(node.input):
            return False
    return True


def _flattening(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the constants that are nothing but the shapes of inputs whose dimensions after the batch become one."""
    rows = {value.name: value.type.tensor_type.shape.dim for value in (*graph.value_info, *graph.input)}
    for tensor in graph.initializer:
        users = [node for node in graph.node if tensor.name in node.input]
        if users and tensor.data_type == onnx.TensorProto.INT64 and tensor.dims == [_BATCH_AND_ALL_ELSE]:
            first, others = numpy_helper.to_array(tensor).tolist()
            if first == -1 and all(
                node.op_type == "Reshape" and _is_row(rows.get(node.input[0], ()), others) for node in users
            ):
                yield tensor.name


def _axes(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the names of what only says over which dimensions something is reduced."""
    for tensor in graph.initializer:
        if all(
            node.op_type.startswith("Reduce") and node.input[0] != tensor.name
            for node in graph.node
            if tensor.name in node.input
        ):
            yield tensor.name


def _is_row(dims: Sequence[onnx.TensorShapeProto.Dimension], size: int) -> bool:
    """Tell whether the dimensions after an open one have a size in all."""
    return bool(dims) and bool(dims[0].dim_param) and math.prod(each.dim_value for each in dims[1:]) == size


def _spreading(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the constants that are shapes of one open dimension and otherwise 1."""
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT64:
            sizes = numpy_helper.to_array(tensor).ravel().tolist()
            if sizes.count(-1) == 1 and set(sizes) <= {-1, 1}:
                yield tensor.name


def _is_depthwise(node: onnx.NodeProto, body: onnx.GraphProto, derivation: onnx.GraphProto, sizes: Sizes) -> bool:
    """Tell whether a grouped convolution has a group for each channel."""
    scaled = {made.output[0]: made.input[0] for made in derivation.node if made.op_type == "Mul"}
    quantized, group = _quantized(body), _group(node)
    weight = quantized.get(node.input[1], node.input[1])
    channels, each, *_ = sizes.get(scaled.get(weight, weight), (0, 0))
    return each == 1 and group is not None and group.i == channels


def _group(node: onnx.NodeProto) -> onnx.AttributeProto | None:
    """Return the number of groups of a grouped convolution."""
    found = [each for each in node.attribute if each.name == "group" and each.i > 1]
    return found[0] if found and node.op_type == "Conv" else None


def _quantized(graph: onnx.GraphProto) -> Mapping[str, str]:
    """Return the integers that stand for each output of a DequantizeLinear."""
    return {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
