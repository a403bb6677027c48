"""Templates: an exporter's program in, a graph that takes any weights of the same structure out.

While the exporter optimizes the graph, its weights are inputs without values: so the same nodes
come out whatever the values are, the zeros of an untrained network included.
"""

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, final

import onnx
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from beats_search.runtimes._folding import all_nodes, count_uses, fold_batch_norms, part
from beats_search.runtimes._sizes import drop_sizes, fit_groups

_MOST_COMPARED: Final = 1024
"""Elements of a tensor; to compare larger ones costs more than it saves."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A model whose weights are empty, `held` by their names, and what derives further tensors from weights.

    `reusable` says that nothing in it can come from the values of the weights that it was made with,
    `sizeless` that nothing in it comes from their sizes either.
    """

    model: onnx.ModelProto
    held: AbstractSet[str]
    derivation: ReferenceEvaluator
    reusable: bool
    sizeless: bool

    def filled(self, weights: Mapping[str, Tensor]) -> onnx.ModelProto:
        """Return the model with weights, by their names; of small equal tensors it holds one."""
        needed = {name: weights[name].numpy(force=True) for name in self.derivation.input_names}
        derived = self.derivation.run(None, needed)
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        for tensor in model.graph.initializer:
            if tensor.name in self.held:
                tensor.raw_data = _bytes(weights[tensor.name])
                tensor.dims[:] = weights[tensor.name].shape
        for name, array in zip(self.derivation.output_names, derived, strict=True):
            of_type = helper.np_dtype_to_tensor_dtype(array.dtype)
            model.graph.initializer.add(name=name, data_type=of_type, dims=array.shape, raw_data=array.tobytes())
        if self.sizeless:
            fit_groups(model.graph)
        _merge_equal(model.graph)
        return model

    def as_text(self) -> str:
        """Return it for other processes."""
        models = {"model": self.model, "derivation": self.derivation.proto_}
        parts = {name: base64.b64encode(model.SerializeToString()).decode("ascii") for name, model in models.items()}
        flags = {"reusable": self.reusable, "sizeless": self.sizeless}
        return json.dumps({**parts, **flags, "held": sorted(self.held)})

    @classmethod
    def from_text(cls, text: str) -> "Template":
        """Return what another process told of its own."""
        told = json.loads(text)
        return cls(
            model=_parsed(told["model"]),
            held=frozenset(told["held"]),
            derivation=ReferenceEvaluator(_parsed(told["derivation"])),
            reusable=told["reusable"],
            sizeless=told["sizeless"],
        )


def template_of(program: torch.onnx.ONNXProgram, weights: Mapping[str, Tensor]) -> Template:
    """Turn a program that has not been optimized, of a model with these weights, into a template."""
    graph = program.model.graph
    values = [graph.initializers.pop(name) for name in weights if name in graph.initializers]
    constants = [value.const_value.tobytes() for value in graph.initializers.values() if value.const_value is not None]
    for value in values:
        value.const_value = None
    graph.inputs.extend(values)
    program.optimize()
    _drop_traces(program)
    return _split(
        program.model_proto,
        {str(value.name) for value in values},
        reusable=not _hold_any(constants, weights),
    )


def _hold_any(constants: Sequence[bytes], weights: Mapping[str, Tensor]) -> bool:
    """Tell whether a constant has the very content of a weight, so that it may be one under another name."""
    sizes = {len(content) for content in constants}
    return any(_bytes(weight) in constants for weight in weights.values() if weight.nbytes in sizes)


def _drop_traces(program: torch.onnx.ONNXProgram) -> None:
    """Drop the exporter's notes from the graph: they outweigh small models and tell paths of this machine."""
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for output in node.outputs:
            output.metadata_props.clear()
    for value in (*program.model.graph.inputs, *program.model.graph.initializers.values()):
        value.metadata_props.clear()
    program.model.metadata_props.clear()
    program.model.graph.metadata_props.clear()


def _split(model: onnx.ModelProto, weights: AbstractSet[str], *, reusable: bool) -> Template:
    """Keep the nodes that need the model's input; those that need weights alone become a model of their own."""
    graph = model.graph
    fold_batch_norms(graph, weights)
    parts = part(graph, weights)
    body = _cut(graph, parts.others, graph.output)
    used = count_uses(body)
    made = [name for node in parts.of_weights for name in node.output if name in used]
    derivation = _cut(graph, parts.of_weights, [onnx.ValueInfoProto(name=name) for name in made])
    held = [value for value in graph.input if value.name in weights and value.name in used]
    body.initializer.extend(map(_empty, held))
    del body.input[:]
    body.input.extend(value for value in graph.input if value.name not in weights)
    sizes = {value.name: tuple(_dims(value)) for value in graph.input if value.name in weights}
    sizeless = drop_sizes(body, derivation, sizes)
    model.graph.CopyFrom(body)
    return Template(
        model=model,
        held={value.name for value in held},
        derivation=ReferenceEvaluator(helper.make_model(derivation, opset_imports=model.opset_import)),
        reusable=reusable,
        sizeless=sizeless,
    )


def _cut(
    whole: onnx.GraphProto, nodes: Sequence[onnx.NodeProto], outputs: Iterable[onnx.ValueInfoProto]
) -> onnx.GraphProto:
    """Return some nodes as a graph of their own, with the inputs and constants that they use."""
    cut = onnx.GraphProto(name=whole.name, node=nodes, output=outputs)
    used, made = count_uses(cut), {name for node in nodes for name in node.output}
    cut.input.extend(value for value in whole.input if value.name in used)
    cut.initializer.extend(tensor for tensor in whole.initializer if tensor.name in used)
    cut.value_info.extend(value for value in whole.value_info if value.name in made)
    return cut


def _empty(value: onnx.ValueInfoProto) -> onnx.TensorProto:
    """Return a tensor of a value's name, type and shape, without content."""
    return onnx.TensorProto(name=value.name, data_type=value.type.tensor_type.elem_type, dims=_dims(value))


def _dims(value: onnx.ValueInfoProto) -> list[int]:
    return [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]


def _merge_equal(graph: onnx.GraphProto) -> None:
    """Let the first of small equal tensors stand for all of them, in place."""
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    stands_for: dict[str, str] = {}
    repeated: list[int] = []
    for index, tensor in enumerate(graph.initializer):
        if math.prod(tensor.dims) <= _MOST_COMPARED and tensor.raw_data:  # strings have none
            same = first.setdefault((tensor.data_type, tuple(tensor.dims), tensor.raw_data), tensor.name)
            if same != tensor.name:
                stands_for[tensor.name] = same
                repeated.append(index)
    for index in reversed(repeated):
        del graph.initializer[index]
    for node in all_nodes(graph) if repeated else ():
        for index, name in enumerate(node.input):
            if name in stands_for:
                node.input[index] = stands_for[name]


def _parsed(text: str) -> onnx.ModelProto:
    model = onnx.ModelProto()
    model.ParseFromString(base64.b64decode(text))
    return model


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
