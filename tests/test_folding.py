"""Folding: graphs whose weights are inputs, computed before and after what depends on weights alone is parted off."""

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from beats_search.runtimes._folding import count_uses, fold_batch_norms, part

Arrays = dict[str, NDArray[np.float32]]
NORM = ("gamma", "beta", "mean", "variance")
RANDOM = np.random.default_rng(0)


def weights(*, shape: tuple[int, ...]) -> Arrays:
    """Return the weights of a layer of three outputs and its norm."""
    found = {name: RANDOM.random(3, dtype=np.float32) + np.float32(0.5) for name in ("bias", *NORM)}
    return {"weight": RANDOM.standard_normal(shape, dtype=np.float32), **found}


def graph_of(nodes: list[onnx.NodeProto], given: Arrays, output: str = "logits") -> onnx.GraphProto:
    """Return a graph of nodes from `input` and weights to an output."""
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, None)]
    inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape) for name, array in given.items()]
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
    return helper.make_graph(nodes, "graph", inputs, outputs)


def computed(graph: onnx.GraphProto, values: Arrays) -> NDArray[np.float32]:
    """Return a graph's output."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    (found,) = ReferenceEvaluator(model).run(None, values)
    return np.asarray(found)


def norm(source: str, result: str, epsilon: float = 1e-5) -> onnx.NodeProto:
    """Return a batch norm."""
    return helper.make_node("BatchNormalization", [source, *NORM], [result], epsilon=epsilon)


LAYERS = {
    "conv": ("Conv", [], (3, 2, 2, 2), (5, 2, 4, 4)),
    "gemm": ("Gemm", [], (4, 3), (5, 4)),
    "transposed gemm": ("Gemm", [helper.make_attribute("transB", 1)], (3, 4), (5, 4)),
}


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_norm_is_folded_into_the_layer_before_it(kind: str, biased: bool) -> None:  # noqa: FBT001 - a parameter
    """The graph computes the same, and its part that needs the input is one layer."""
    op_type, attributes, shape, input_shape = LAYERS[kind]
    given = weights(shape=shape)
    sources = ["input", "weight", *(["bias"] if biased else [])]
    layer = helper.make_node(op_type, sources, ["hidden"])
    layer.attribute.extend(attributes)
    graph = graph_of([layer, norm("hidden", "logits", epsilon=0.01)], given)
    values = {"input": RANDOM.standard_normal(input_shape, dtype=np.float32), **given}
    before = computed(graph, values)
    fold_batch_norms(graph, set(given))
    assert np.allclose(computed(graph, values), before, atol=1e-5)
    assert [node.op_type for node in part(graph, set(given)).others] == [op_type]


def conv(result: str, weight: str = "weight", source: str = "input") -> onnx.NodeProto:
    """Return a convolution without bias."""
    return helper.make_node("Conv", [source, weight], [result])


SHARED = {
    "a layer's output": [conv("a"), norm("a", "b"), helper.make_node("Add", ["a", "b"], ["logits"])],
    "a layer's weight": [conv("a"), norm("a", "b"), conv("c"), helper.make_node("Add", ["b", "c"], ["logits"])],
    "a norm": [conv("a"), norm("a", "b"), norm("b", "logits")],
    "no layer": [helper.make_node("Relu", ["input"], ["a"]), norm("a", "logits")],
    "a scaled bias": [helper.make_node("Gemm", ["input", "weight", "bias"], ["a"], beta=2.0), norm("a", "logits")],
}


@pytest.mark.parametrize("what", SHARED)
def test_what_is_used_twice_is_not_folded(what: str) -> None:
    """Where folding would change another use, or there is nothing to fold into, the graph stays as it is."""
    graph = graph_of(SHARED[what], weights(shape=(3, 2, 1, 1)))
    before = graph.SerializeToString()
    fold_batch_norms(graph, {"weight", "bias", *NORM})
    assert graph.SerializeToString() == before


def test_nodes_of_weights_are_told_from_those_of_the_input() -> None:
    """What needs weights alone is parted off, in order; what says how to compute, or needs a shared weight, stays."""
    nodes = [
        helper.make_node("Transpose", ["a"], ["transposed"]),
        helper.make_node("Mul", ["transposed", "two"], ["doubled"]),
        helper.make_node("MatMul", ["input", "doubled"], ["first"]),
        helper.make_node("DequantizeLinear", ["b", "two"], ["dequantized"]),
        helper.make_node("Neg", ["dequantized"], ["negated"]),
        helper.make_node("Neg", ["c"], ["shared"]),
        helper.make_node("Sum", ["first", "negated", "shared", "c"], ["logits"]),
    ]
    graph = graph_of(nodes, {name: np.ones((2, 2), np.float32) for name in "abc"})
    graph.initializer.append(numpy_helper.from_array(np.array(2, np.float32), "two"))
    parts = part(graph, set("abc"))
    assert [node.output[0] for node in parts.of_weights] == ["transposed", "doubled"]
    assert [node.output[0] for node in parts.others] == ["first", "dequantized", "negated", "shared", "logits"]


def test_uses_inside_of_branches_count() -> None:
    """A value that a branch reads is used, so that it is neither folded nor computed in advance."""
    branch = helper.make_graph([helper.make_node("Neg", ["weight"], ["inner"])], "branch", [], [])
    both = {"then_branch": branch, "else_branch": branch}
    nodes = [helper.make_node("If", ["input"], ["chosen"], **both), helper.make_node("Neg", ["weight"], ["logits"])]
    graph = graph_of(nodes, {"weight": np.ones(3, np.float32)})
    assert count_uses(graph)["weight"] == 3
    assert not part(graph, {"weight"}).of_weights
