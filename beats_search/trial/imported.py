"""Imported: what every trial needs, imported by one process before it forks for many.

Nothing here may start a thread, as the import of onnxruntime does: a fork has only the thread that forked.
"""

import contextlib

from beats_search.compression import channel_pruning, quantization
from beats_search.runtimes import _operators
from beats_search.trial import run

__all__ = ["channel_pruning", "quantization", "run"]

with contextlib.suppress(Exception):  # then each process finds out what is wrong by itself, and tells it
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with _operators.one_table():
        ONNXRegistry.from_torchlib()
