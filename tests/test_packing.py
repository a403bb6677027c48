"""Packing: weights of few bits are stored in as few, and the file computes what it did."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from beats_search import plugins
from beats_search.compression._conversion import quantize
from beats_search.records.part import Part
from beats_search.runtimes._packing import pack
from beats_search.runtimes.onnxruntime import OnnxRuntime
from beats_search.tensors.seams import Bench

INTEGERS = {TensorProto.INT2: 1, TensorProto.INT4: 7, TensorProto.INT8: 127}


def product(weight: NDArray[np.int8]) -> onnx.ModelProto:
    """Return a model that multiplies its input (n, rows) with an integer weight (rows, columns)."""
    nodes = [
        helper.make_node("DequantizeLinear", ["weight", "scale"], ["float"]),
        helper.make_node("MatMul", ["input", "float"], ["logits"]),
    ]
    tensors = [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(np.array(0.5, np.float32), "scale")]
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", weight.shape[0]])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", weight.shape[1]])]
    graph = helper.make_graph(nodes, "product", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@given(largest=st.sampled_from([0, 1, 2, 7, 8, 127]), rows=st.integers(1, 5), columns=st.integers(1, 7))
def test_packed_weights_are_the_same_integers(largest: int, rows: int, columns: int) -> None:
    """Any weight is stored in the fewest bits that hold it, and multiplies as before."""
    random = np.random.default_rng(rows * columns)
    weight = random.integers(-largest, largest, size=(rows, columns), endpoint=True, dtype=np.int8)
    weight[0, 0] = largest
    plain, packed = product(weight), product(weight)
    pack(packed)
    (stored,) = (tensor for tensor in packed.graph.initializer if tensor.name.startswith("weight"))
    assert INTEGERS[stored.data_type] == min(most for most in INTEGERS.values() if most >= largest)
    assert np.array_equal(numpy_helper.to_array(stored).astype(np.int8), weight)
    feed = {"input": random.standard_normal((3, rows)).astype(np.float32)}
    before, after = (onnxruntime.InferenceSession(each.SerializeToString()).run(None, feed) for each in (plain, packed))
    assert np.array_equal(before[0], after[0])


@pytest.mark.slow
def test_fewer_bits_make_smaller_files_on_the_same_kernels(
    bench: Bench, settled: Callable[[nn.Module, Tensor], nn.Module], tmp_path: Path
) -> None:
    """The file of a network shrinks with its bits, and runs on the same kernels at every width."""
    torch.manual_seed(0)
    network = plugins.make("models", Part(name="resnet", settings=(("width", 32),))).build((1, 8, 8), 10)
    images = bench.data.train.inputs
    model = settled(network, images)
    kernels, sizes = [], []
    for bits in (8, 4, 2):
        engine = OnnxRuntime().deploy(quantize(model, images, bits), images[:1], tmp_path / f"{bits}.onnx")
        kernels.append(engine.kernels())
        sizes.append(engine.path.stat().st_size)
        onnx.checker.check_model(engine.path)
    assert kernels[0] == kernels[1] == kernels[2]
    assert sizes[1] < 0.65 * sizes[0]
    assert sizes[2] < 0.65 * sizes[1]
