"""ONNX Runtime on the CPU: a model in, an ONNX file and an engine that runs it out."""

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Final, Literal, final

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from beats_search.runtimes._block_weights import store_in_blocks
from beats_search.runtimes._call import check_call
from beats_search.runtimes._onnx_export import INPUT, OUTPUT, export_onnx

__all__ = ["OnnxRuntime"]

_KERNELS: Final[Mapping[str, frozenset[str]]] = {
    "fp32": frozenset({
        "Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "TransposeMatMul",
        "FusedMatMulActivation", "Einsum", "Attention", "MultiHeadAttention", "LSTM", "GRU", "RNN",
    }),
    "int8": frozenset({
        "QLinearConv", "QGemm", "QLinearMatMul", "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul", "QAttention", "DynamicQuantizeLSTM", "MatMulNBits8",
    }),
    "int4": frozenset({"MatMulNBits4"}),
}  # fmt: skip
"""Operators that do the work, by the precision of their products; all others only move or scale."""

_AS_EXPORTED: Final = 32
_EVALUATION_BATCH: Final = 512
_ERRORS_ONLY: Final = 3


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxRuntime:
    """ONNX Runtime on the CPU: `threads` per call, `batch_size` inputs in the call that is timed.

    `linear_bits` below 32 stores the weights of wide float linear layers (65,536 weights or more,
    where it pays) in 4 or 8 bits, rounded as they are, without training or calibration. It is for
    models that quantization left in float; convolutions and integer layers stay as they are.
    """

    suffix: ClassVar[str] = ".onnx"

    threads: int = 1
    batch_size: int = field(default=1, metadata={"knob": False})
    linear_bits: Literal[32, 8, 4] = 32

    def __post_init__(self) -> None:
        """Refuse a call of nothing, or by nobody."""
        check_call(threads=self.threads, batch_size=self.batch_size)

    @property
    def faithful(self) -> bool:
        """Whether a model stays as it is: weights that are stored in fewer bits are others."""
        return self.linear_bits == _AS_EXPORTED

    def deploy(self, model: nn.Module, example: Tensor, path: Path) -> "OnnxRuntimeEngine":
        """Export the model to `path` and load it."""
        export_onnx(model, example, path)
        if self.linear_bits != _AS_EXPORTED:
            store_in_blocks(path, self.linear_bits)
        return self.load(path)

    def load(self, path: Path) -> "OnnxRuntimeEngine":
        """Load a file that `deploy` wrote."""
        return OnnxRuntimeEngine(path, threads=self.threads, batch_size=self.batch_size)


@final
class OnnxRuntimeEngine:
    """An ONNX file, run by ONNX Runtime with a fixed number of threads."""

    def __init__(self, path: Path, *, threads: int, batch_size: int) -> None:
        """Remember the file; sessions are made when they are needed."""
        self.path = path
        self.threads = threads
        self.batch_size = batch_size

    @cached_property
    def executed_as(self) -> str:
        """`fp32`, `int8` or `int4` when all heavy kernels of the optimized graph are so, else `mixed`."""
        kernels = self.kernels()
        found = [precision for precision, names in _KERNELS.items() if names & kernels.keys()] or ["fp32"]
        return found[0] if len(found) == 1 else "mixed"

    def kernels(self) -> Counter[str]:
        """Count the operators of the graph as ONNX Runtime executes it, after its optimization.

        A name ends in the bits of the weights where the operator says them.
        """
        with tempfile.TemporaryDirectory(dir=self.path.parent) as folder:
            optimized = Path(folder) / "optimized.onnx"
            options = self._options()
            options.optimized_model_filepath = str(optimized)
            self._session(options)
            graph = onnx.load(optimized, load_external_data=False).graph
        return Counter(f"{node.op_type}{_bits(node)}" for node in graph.node)

    def logits(self, inputs: Tensor) -> Tensor:
        """Return the logits (n, classes) of float inputs (n, …), computed in large batches."""
        session = self._session(self._options())
        chunks = (chunk.contiguous().numpy() for chunk in torch.split(inputs, _EVALUATION_BATCH))
        return torch.cat([torch.from_numpy(session.run([OUTPUT], {INPUT: chunk})[0]) for chunk in chunks])

    def open(self) -> Callable[[], object]:
        """Load the file into a fresh session and return the call to time: one batch of noise."""
        session = self._session(self._options())
        shape = (self.batch_size, *session.get_inputs()[0].shape[1:])
        feed = {INPUT: np.random.default_rng(0).random(shape, dtype=np.float32)}
        return lambda: session.run([OUTPUT], feed)

    def _options(self) -> onnxruntime.SessionOptions:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ONLY
        return options

    def _session(self, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
        return onnxruntime.InferenceSession(self.path, options, providers=["CPUExecutionProvider"])


def _bits(node: onnx.NodeProto) -> str:
    return "".join(str(item.i) for item in node.attribute if item.name == "bits")
