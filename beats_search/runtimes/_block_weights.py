"""Block weights: an ONNX file with wide float linear layers in, the same with their weights in few bits per block out.

The weights become integers with a scale per block of 32, and ONNX Runtime's MatMulNBits multiplies
them with inputs that it rounds to 8 bits as it runs (`accuracy_level` 4).
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

_WIDE: Final = 2**16
"""Weights of a layer from which on it pays: at batch 1, three layers of 128 x 128 took 1.1 times as long as in float,
of 256 x 256 0.7 times, of 1024 x 1024 0.2 times (one thread, AMD Zen 4, onnxruntime 1.31)."""

_BLOCK: Final = 32
_ON_INTEGERS: Final = 4


def store_in_blocks(path: Path, bits: int) -> None:
    """Rewrite a file so that its wide linear layers have weights of 4 or 8 bits; the narrow ones stay as they are."""
    model = onnx.load(path)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    _name_nodes(model.graph)
    _split_products(model.graph, weights)
    narrow = [
        node.name for node in model.graph.node if node.op_type == "MatMul" and not _is_wide(node.input[1], weights)
    ]
    quantizer = _quantizer_class()(
        model, bits=bits, block_size=_BLOCK, is_symmetric=True, accuracy_level=_ON_INTEGERS, nodes_to_exclude=narrow
    )
    quantizer.process()
    onnx.save(quantizer.model.model, path)


def _quantizer_class() -> Any:  # noqa: ANN401 - ONNX Runtime ships no types
    """Import the quantizer, whose module sets up the logging of the whole process, and undo just that."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer  # noqa: PLC0415 - as said above

    root.handlers[:] = handlers
    root.setLevel(level)
    return MatMulNBitsQuantizer


def _name_nodes(graph: onnx.GraphProto) -> None:
    for index, node in enumerate(graph.node):
        node.name = node.name or f"node_{index}"


def _split_products(graph: onnx.GraphProto, weights: dict[str, TensorProto]) -> None:
    """Write every wide Gemm with constant weights as a MatMul and an Add, in place."""
    nodes = [made for node in graph.node for made in _split(node, graph, weights)]
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _split(node: NodeProto, graph: onnx.GraphProto, weights: dict[str, TensorProto]) -> Iterator[NodeProto]:
    settings = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    plain = settings.get("alpha", 1.0) == settings.get("beta", 1.0) == 1.0 and not settings.get("transA", 0)
    if node.op_type != "Gemm" or not plain or not _is_wide(node.input[1], weights):
        yield node
        return
    values, weight, *bias = node.input
    if settings.get("transB", 0):
        turned = numpy_helper.from_array(numpy_helper.to_array(weights[weight]).T.copy(), f"{weight}.turned")
        if turned.name not in weights:
            graph.initializer.append(turned)
            weights[turned.name] = turned
        weight = turned.name
    product = f"{node.name}.product" if bias else node.output[0]
    yield helper.make_node("MatMul", [values, weight], [product], name=node.name)
    if bias:
        yield helper.make_node("Add", [product, *bias], [node.output[0]], name=f"{node.name}.bias")


def _is_wide(weight: str, weights: dict[str, TensorProto]) -> bool:
    """Tell whether an input is a constant float matrix that is large enough."""
    tensor = weights.get(weight)
    return (
        tensor is not None
        and tensor.data_type == TensorProto.FLOAT
        and len(tensor.dims) == 2  # noqa: PLR2004 - a matrix
        and tensor.dims[0] * tensor.dims[1] >= _WIDE
    )
