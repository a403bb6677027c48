"""Torch programs: a model in, the same model as one exported graph with an open batch out.

`torch.export` keeps the operators that torch computes with, so a program that was saved and loaded
again computes what the model computes, on torch's kernels.
"""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from beats_search.runtimes._torch_precision import PRECISIONS, in_precision

_HEAVY: Final = frozenset({
    "conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
    "linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "scaled_dot_product_attention",
})  # fmt: skip
_NEEDED: Final = frozenset({"val", "tensor_meta"})


def export_program(model: nn.Module, example: Tensor, precision: str) -> ExportedProgram:
    """Return a program from float inputs (n, …) to float logits; the model stays as it is.

    Only the shape of `example`, one input with its batch dimension, is used. The program holds
    no inputs, and no notes of the exporter, which tell paths of this machine.
    """
    shaped = in_precision(copy.deepcopy(model).cpu().eval(), precision)
    pair = torch.zeros(2, *example.shape[1:])  # a batch of one would be taken for a fixed size
    with quiet(), torch.no_grad():
        program = torch.export.export(shaped, (pair,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for node in _nodes(program):
        for note in set(node.meta) - _NEEDED:
            del node.meta[note]
    return program


def on_device(program: ExportedProgram, device: torch.device) -> ExportedProgram:
    """Return the program for a device; one for the CPU is returned as it is."""
    return program if device.type == "cpu" else move_to_device_pass(program, device)


def input_shape(program: ExportedProgram) -> tuple[int, ...]:
    """Return the shape of one input without its batch dimension."""
    (name,) = program.graph_signature.user_inputs
    given = next(node for node in program.graph.nodes if node.op == "placeholder" and node.name == name)
    return tuple(int(size) for size in given.meta["val"].shape[1:])


def executed_as(program: ExportedProgram) -> str:
    """Return the precision in which all convolutions and matrix products compute, `mixed` for several.

    Torch has no integer kernels for these graphs: a model on integer grids computes in float.
    """
    names = {dtype: name for name, dtype in PRECISIONS.items()}
    found = {dtype for node in _nodes(program) if _is_heavy(node) for dtype in _float_dtypes(node)}
    precisions = {names.get(dtype, "mixed") for dtype in found} or {"fp32"}
    return precisions.pop() if len(precisions) == 1 else "mixed"


@contextmanager
def quiet() -> Iterator[None]:
    """Let neither torch's loggers nor its warnings speak of its own internals; errors are raised all the same."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _nodes(program: ExportedProgram) -> Iterator[fx.Node]:
    for module in program.graph_module.modules():
        if isinstance(module, fx.GraphModule):
            yield from module.graph.nodes


def _is_heavy(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._opname in _HEAVY  # noqa: SLF001 - no public name


def _float_dtypes(node: fx.Node) -> set[torch.dtype]:
    values = [source.meta.get("val") for source in node.all_input_nodes]
    return {value.dtype for value in values if isinstance(value, Tensor) and value.is_floating_point()}
