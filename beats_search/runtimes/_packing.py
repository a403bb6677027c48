"""Packing: an ONNX model with 8-bit weights in, the same model with those that fit stored in 2 or 4 bits out.

A packed weight is cast to 8 bits where it is used; runtimes do so once, when they load the file, and
compute with the same integers.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

_MATRIX: Final = 2  # biases, scales and zero points weigh nothing
_PACKED: Final = ((1, TensorProto.INT2, 25), (7, TensorProto.INT4, 21))
"""The largest size of a value, the type, and the first operator set whose Cast takes it."""


def pack(model: onnx.ModelProto) -> None:
    """Store every 8-bit weight whose values fit into 2 or 4 bits in as many, in place."""
    graph, oldest = model.graph, 0
    for weight, values in list(_weights(graph)):
        for largest, kind, opset in _PACKED:
            if int(np.abs(values.astype(np.int16)).max(initial=0)) <= largest:
                _store(graph, weight, values, kind)
                oldest = max(oldest, opset)
                break
    if oldest:
        _require(model, oldest)


def _weights(graph: onnx.GraphProto) -> Iterator[tuple[TensorProto, NDArray[np.int8]]]:
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.INT8 and len(tensor.dims) >= _MATRIX:
            yield tensor, numpy_helper.to_array(tensor)


def _store(graph: onnx.GraphProto, weight: TensorProto, values: NDArray[np.int8], kind: int) -> None:
    name = weight.name
    packed = numpy_helper.from_array(values.astype(helper.tensor_dtype_to_np_dtype(kind)), f"{name}.packed")
    graph.initializer.remove(weight)
    graph.initializer.append(packed)
    graph.node.insert(0, helper.make_node("Cast", [packed.name], [name], to=TensorProto.INT8))


def _require(model: onnx.ModelProto, opset: int) -> None:
    """Raise the operator set; of the operators of a network, later sets only take more types."""
    for domain in model.opset_import:
        if domain.domain in ("", "ai.onnx"):
            domain.version = max(domain.version, opset)
    model.ir_version = max(model.ir_version, helper.find_min_ir_version_for(model.opset_import))
