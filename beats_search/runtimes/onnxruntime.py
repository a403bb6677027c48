"""ONNX Runtime on the CPU: a model in, an ONNX file and an engine that runs it out."""

import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, final

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from beats_search.runtimes._onnx_export import INPUT, OUTPUT, export_onnx

__all__ = ["OnnxRuntime"]

_FLOAT_KERNELS: Final = frozenset({
    "Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "TransposeMatMul",
})  # fmt: skip
_INTEGER_KERNELS: Final = frozenset({
    "QLinearConv", "QGemm", "QLinearMatMul", "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul",
})  # fmt: skip
_EVALUATION_BATCH: Final = 512
_ERRORS_ONLY: Final = 3


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxRuntime:
    """ONNX Runtime on the CPU: `threads` per call, `batch_size` inputs in the call that is timed."""

    threads: int = 1
    batch_size: int = field(default=1, metadata={"knob": False})

    def __post_init__(self) -> None:
        """Refuse a call of nothing, or by nobody."""
        if self.threads < 1:
            raise ValueError(f"threads needs to be at least 1, got {self.threads}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size needs to be at least 1, got {self.batch_size}")

    def deploy(self, model: nn.Module, example: Tensor, path: Path) -> "OnnxRuntimeEngine":
        """Export the model to `path` and load it."""
        export_onnx(model, example, path)
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
        """`int8` or `fp32` when all heavy kernels of the optimized graph are so, else `mixed`."""
        kernels = self.kernels()
        has_float = any(kernels[name] for name in _FLOAT_KERNELS)
        has_integer = any(kernels[name] for name in _INTEGER_KERNELS)
        return "mixed" if has_float and has_integer else "int8" if has_integer else "fp32"

    def kernels(self) -> Counter[str]:
        """Count the operators of the graph as ONNX Runtime executes it, after its optimization."""
        with tempfile.TemporaryDirectory(dir=self.path.parent) as folder:
            optimized = Path(folder) / "optimized.onnx"
            options = self._options()
            options.optimized_model_filepath = str(optimized)
            self._session(options)
            graph = onnx.load(optimized, load_external_data=False).graph
        return Counter(node.op_type for node in graph.node)

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
