"""OpenVINO on the CPU: a model in, an ONNX file and an engine that runs it out."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import ClassVar, Final, Literal, final

import numpy as np
import openvino
import torch
from torch import Tensor, nn

from beats_search.runtimes._call import check_call
from beats_search.runtimes._onnx_export import export_onnx
from beats_search.runtimes._two_bits import widen_two_bits

__all__ = ["OpenVino"]

_CONVOLUTIONS: Final = {"Convolution", "GroupConvolution", "Deconvolution"}
_PRODUCTS: Final = {"FullyConnected", "MatMul", "ScaledDotProductAttention"}
_RECURRENT: Final = {"RNNCell", "RNNSeq"}
_HEAVY: Final = frozenset(_CONVOLUTIONS | _PRODUCTS | _RECURRENT)
_FUSED: Final = "Subgraph"
_PRECISIONS: Final = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "u8": "int8", "i8": "int8"}
_HINTS: Final = {"fp32": "f32", "bf16": "bf16"}
_EVALUATION_BATCH: Final = 512


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVino:
    """OpenVINO on the CPU: one stream, tuned for latency; `precision` is that of what is on no integer grid.

    The file is the same ONNX file that ONNX Runtime reads, but for weights of 2 bits, which
    OpenVINO does not know: they are stored in 4.
    """

    suffix: ClassVar[str] = ".onnx"

    threads: int = 1
    batch_size: int = field(default=1, metadata={"knob": False})
    precision: Literal["fp32", "bf16"] = "fp32"

    def __post_init__(self) -> None:
        """Refuse a call of nothing, or by nobody."""
        check_call(threads=self.threads, batch_size=self.batch_size)

    @property
    def faithful(self) -> bool:
        """Whether a model stays as it is: in a lower precision it rounds otherwise."""
        return self.precision == "fp32"

    def deploy(self, model: nn.Module, example: Tensor, path: Path) -> "OpenVinoEngine":
        """Export the model to `path` and load it; ValueError when the processor has no such precision."""
        _check_precision(self.precision)
        export_onnx(model, example, path)
        widen_two_bits(path)
        return self.load(path)

    def load(self, path: Path) -> "OpenVinoEngine":
        """Load a file that `deploy` wrote, or another one that OpenVINO reads."""
        _check_precision(self.precision)
        return OpenVinoEngine(path, threads=self.threads, batch_size=self.batch_size, precision=self.precision)


@final
class OpenVinoEngine:
    """A file, run by OpenVINO with a fixed number of threads."""

    def __init__(self, path: Path, *, threads: int, batch_size: int, precision: str) -> None:
        """Remember the file; it is compiled when it is needed."""
        self.path = path
        self._batch_size = batch_size
        self._settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # or all processes of a machine compute on its first core
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
        }

    @cached_property
    def executed_as(self) -> str:
        """The precision of all heavy kernels of the compiled graph, `mixed` for several."""
        found = {precision for _, precision in self.kernels()} or {"fp32"}
        return found.pop() if len(found) == 1 else "mixed"

    def kernels(self) -> Counter[tuple[str, str]]:
        """Count the heavy kernels of the graph that is timed, by their operator and precision.

        Chains of narrow linear layers become one `Subgraph` that does not say in what it computes;
        there, the precision of each matrix of weights counts.
        """
        nodes = self._compiled_for_timing().get_runtime_model().get_ordered_ops()
        found = [kernel for node in nodes for kernel in _kernels_of(node)]
        return Counter((operator, _PRECISIONS.get(precision, "mixed")) for operator, precision in found)

    def logits(self, inputs: Tensor) -> Tensor:
        """Return the logits (n, classes) of float inputs (n, …), computed in large batches."""
        compiled = self._compiled(_core().read_model(self.path))
        chunks = (chunk.contiguous().numpy() for chunk in torch.split(inputs, _EVALUATION_BATCH))
        return torch.cat([torch.from_numpy(compiled(chunk)[0].copy()) for chunk in chunks])

    def open(self) -> Callable[[], object]:
        """Compile the file afresh and return the call to time: one batch of noise, which lies where it is read."""
        request = self._compiled_for_timing().create_infer_request()
        noise = np.random.default_rng(0).random(tuple(request.get_input_tensor().shape), dtype=np.float32)
        request.set_input_tensor(openvino.Tensor(noise, shared_memory=True))
        call: Callable[[], object] = request.infer
        return call

    def _compiled_for_timing(self) -> "openvino.CompiledModel":
        """Compile the file for batches of one size, as whoever deploys it would."""
        model = _core().read_model(self.path)
        model.reshape([self._batch_size, *list(model.input().get_partial_shape())[1:]])
        return self._compiled(model)

    def _compiled(self, model: "openvino.Model") -> "openvino.CompiledModel":
        return _core().compile_model(model, "CPU", self._settings)


@cache
def _core() -> "openvino.Core":
    return openvino.Core()


def _check_precision(precision: str) -> None:
    if precision == "bf16" and "BF16" not in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ValueError("precision bf16 needs a processor that computes in it, and this one does not: take fp32")


def _kernels_of(node: "openvino.Node") -> Iterator[tuple[str, str]]:
    """Yield the operator and precision of the heavy kernels in a node of a compiled graph."""
    operator, precision = _facts(node)
    if operator in _HEAVY:
        yield operator, precision
    if operator == _FUSED:
        sources = [given.get_source_output() for given in node.inputs()]
        constants = [(source, *_facts(source.get_node())) for source in sources]
        yield from ((operator, held) for source, kind, held in constants if kind == "Const" and _is_matrix(source))


def _is_matrix(source: "openvino.Output") -> bool:
    sizes = [int(size.get_length()) for size in source.get_partial_shape()]
    return sum(size > 1 for size in sizes) > 1


def _facts(node: "openvino.Node") -> tuple[str, str]:
    """Return the operator and the precision that a node of a compiled graph says it has."""
    info = node.get_rt_info()
    return info["layerType"].astype(str), info["runtimePrecision"].astype(str)
