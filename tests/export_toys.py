"""Export toys: what the tests of the ONNX export share."""

import torch
from torch import Tensor, nn

from beats_search.runtimes import _onnx_export as exporter
from beats_search.runtimes._templates import template_of
from beats_search.tensors.structure import weights_of


def of_its_own(model: nn.Module, example: Tensor) -> bytes:
    """Return the file of a model of which no like has been exported before."""
    prepared = exporter._prepared(model)
    weights = weights_of(prepared)
    program: torch.onnx.ONNXProgram = exporter._program(prepared, example)
    return bytes(template_of(program, weights).filled(weights).SerializeToString())
