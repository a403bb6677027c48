"""ONNX export: a model from float inputs to logits in, a file with a dynamic batch out."""

import io
import logging
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from torch import Tensor, nn

from beats_search.tensors.fake_quant import for_export

INPUT = "input"
OUTPUT = "logits"


def export_onnx(model: nn.Module, example: Tensor, path: Path) -> None:
    """Write the model to `path`; `example` is one input with its batch dimension.

    The file takes `input` (batch, …) and yields `logits` (batch, classes).
    """
    pair = torch.cat([example, example])  # a batch of one would be taken for a fixed size
    batch = torch.export.Dim("batch")
    said = io.StringIO()  # the exporter prints its graph when it fails; its exception says enough
    with warnings.catch_warnings(), redirect_stdout(said), redirect_stderr(said), _quiet(logging.getLogger("torch")):
        warnings.simplefilter("ignore")  # the exporter warns of its own internals
        program = torch.onnx.export(
            for_export(model).eval(),
            (pair,),
            dynamo=True,
            verbose=False,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: batch},),
        )
    if program is None:
        raise RuntimeError("the exporter returned no program")
    _without_traces(program)
    program.save(path)


def _without_traces(program: torch.onnx.ONNXProgram) -> None:
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


class _quiet:  # noqa: N801 - reads as a verb where it is used
    """Lets a logger say nothing below an error."""

    def __init__(self, logger: logging.Logger) -> None:
        self.logger, self.level = logger, logger.level

    def __enter__(self) -> None:
        self.logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        self.logger.setLevel(self.level)
