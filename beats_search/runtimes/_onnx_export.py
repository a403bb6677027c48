"""ONNX export: a model from float inputs to logits in, a file with a dynamic batch out.

The exporter takes seconds, whatever the weights are. So a graph is exported once per structure,
and the next model of the same structure puts its weights into it. Where nothing in a graph comes
from the sizes of layers, it serves all widths of the network, after a comparison with the model.
"""

import copy
import io
import logging
import warnings
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    NotImplemented,  # noqa: A004 - the library's own name
    RuntimeException,
)
from torch import Tensor, nn

from beats_search.records.errors import ExportError
from beats_search.runtimes._operators import one_table
from beats_search.runtimes._packing import pack
from beats_search.runtimes._templates import Template, template_of
from beats_search.tensors import shelf
from beats_search.tensors.fake_quant import for_export
from beats_search.tensors.structure import Known, Structure, family_of, name_of, structure_of, weights_of

INPUT: Final = "input"
OUTPUT: Final = "logits"

_TEMPLATES: Final = Known[Template](most=32)
_OF_ANY_SIZE: Final = Known[tuple[Structure, Template]](most=32)
"""With the structure of the model that it was made of."""

_ELSEWHERE: Final = "made by another process"

_REFUSALS: Final = (Fail, InvalidArgument, InvalidGraph, NotImplemented, RuntimeException)
_FATAL_ONLY: Final = 4
_AGREEMENT: Final = 1e-3
_AGREEMENT_ON_GRIDS: Final = 0.1
"""The largest deviation of a logit, as a share of the largest logit: roundings stay below, another graph does not."""


def export_onnx(model: nn.Module, example: Tensor, path: Path) -> None:
    """Write the model to `path`; `example` is one input with its batch dimension.

    The file takes `input` (batch, …) and yields `logits` (batch, classes).
    """
    exported = _prepared(model)
    weights, structure = weights_of(exported), structure_of(exported)
    template = _TEMPLATES.found(
        None if structure is None else (structure, example.shape[1:], example.dtype),
        lambda: _template(model, exported, example, structure),
        keep=lambda made: made.reusable,
    )
    path.write_bytes(_packed(template, weights))


def _template(model: nn.Module, exported: nn.Module, example: Tensor, structure: Structure | None) -> Template:
    """Return the template that the model's family has, if it computes what the model does, or else a new one."""
    weights, family = weights_of(exported), family_of(exported)
    key = None if family is None else (family, example.shape[1:], example.dtype)
    name = None if key is None else name_of(key)

    def made() -> tuple[Structure, Template]:
        new = template_of(_program(exported, example), weights)
        if new.reusable and new.sizeless:
            shelf.put(name, new.as_text())
        return structure, new

    def found() -> tuple[Structure, Template]:
        kept = shelf.taken(name)
        return made() if kept is None else (_ELSEWHERE, Template.from_text(kept))

    origin, template = _OF_ANY_SIZE.found(key, found, keep=lambda each: each[1].reusable and each[1].sizeless)
    return template if origin == structure or _agrees(template, weights, model, example) else made()[1]


def _packed(template: Template, weights: Mapping[str, Tensor]) -> bytes:
    filled = template.filled(weights)
    pack(filled)
    return bytes(filled.SerializeToString())


def _agrees(template: Template, weights: Mapping[str, Tensor], model: nn.Module, example: Tensor) -> bool:
    """Tell whether a template computes the model's logits for a batch of two, up to roundings."""
    pair = torch.cat([example, example])
    with torch.inference_mode():
        expected = copy.deepcopy(model).eval()(pair).numpy()
    declared = [size.dim_value for size in template.model.graph.output[0].type.tensor_type.shape.dim]
    if declared[1:] != [*expected.shape[1:]]:
        return False
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    try:
        session = onnxruntime.InferenceSession(_packed(template, weights), options, providers=["CPUExecutionProvider"])
        found = session.run([OUTPUT], {INPUT: pair.numpy()})[0]
    except _REFUSALS:  # weights that do not fit together this way
        return False
    in_float = all(weight.is_floating_point() for weight in weights.values())
    allowed = (_AGREEMENT if in_float else _AGREEMENT_ON_GRIDS) * np.abs(expected).max()
    return bool(np.abs(found - expected).max() <= allowed)


def _prepared(model: nn.Module) -> nn.Module:
    """Return a copy as the exporter is to see it; the order of weights in memory would show in names of the graph."""
    exported = for_export(model).eval()
    for tensor in (*exported.parameters(), *exported.buffers()):
        if tensor.stride() != torch.empty(tensor.shape, device="meta").stride():
            tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return exported


def _program(model: nn.Module, example: Tensor) -> torch.onnx.ONNXProgram:
    """Return the model as the exporter writes it, before it is optimized."""
    pair = torch.cat([example, example])  # a batch of one would be taken for a fixed size
    batch = torch.export.Dim("batch")
    said = io.StringIO()  # the exporter prints its graph when it fails; its exception says enough
    silenced = _quiet(logging.getLogger("torch"))
    with one_table(), warnings.catch_warnings(), redirect_stdout(said), redirect_stderr(said), silenced:
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        try:
            program = torch.onnx.export(
                model,
                (pair,),
                dynamo=True,
                verbose=False,
                optimize=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: batch},),
            )
        except torch.onnx.OnnxExporterError as error:
            raise ExportError(_why(error)) from error
    if program is None:
        raise RuntimeError("the exporter returned no program")
    return program


def _why(error: BaseException) -> str:
    """Return what lies at the root of a failed export, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    words = str(error).strip().partition("\n")[0]
    advice = "a network has a graph where neither its course nor its shapes depend on the values that it computes"
    return f"torch cannot export this network: {type(error).__name__}: {words}; {advice}"


class _quiet:  # noqa: N801 - reads as a verb where it is used
    """Lets a logger say nothing below an error."""

    def __init__(self, logger: logging.Logger) -> None:
        self.logger, self.level = logger, logger.level

    def __enter__(self) -> None:
        self.logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        self.logger.setLevel(self.level)
