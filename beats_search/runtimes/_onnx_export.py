"""ONNX export: a model from float inputs to logits in, a file with a dynamic batch out.

The exporter takes seconds, whatever the weights are. So a graph is exported once per structure,
and the next model of the same structure puts its weights into it.
"""

import io
import logging
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from beats_search.runtimes._packing import pack
from beats_search.runtimes._templates import Template, template_of
from beats_search.tensors.fake_quant import for_export
from beats_search.tensors.structure import Known, structure_of, weights_of

INPUT: Final = "input"
OUTPUT: Final = "logits"

_TEMPLATES: Final = Known[Template](most=32)


def export_onnx(model: nn.Module, example: Tensor, path: Path) -> None:
    """Write the model to `path`; `example` is one input with its batch dimension.

    The file takes `input` (batch, …) and yields `logits` (batch, classes).
    """
    exported = _prepared(model)
    weights, structure = weights_of(exported), structure_of(exported)
    template = _TEMPLATES.found(
        None if structure is None else (structure, example.shape[1:], example.dtype),
        lambda: template_of(_program(exported, example), weights),
        keep=lambda made: made.reusable,
    )
    filled = template.filled(weights)
    pack(filled)
    path.write_bytes(filled.SerializeToString())


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
    with warnings.catch_warnings(), redirect_stdout(said), redirect_stderr(said), _quiet(logging.getLogger("torch")):
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
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
    if program is None:
        raise RuntimeError("the exporter returned no program")
    return program


class _quiet:  # noqa: N801 - reads as a verb where it is used
    """Lets a logger say nothing below an error."""

    def __init__(self, logger: logging.Logger) -> None:
        self.logger, self.level = logger, logger.level

    def __enter__(self) -> None:
        self.logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        self.logger.setLevel(self.level)
