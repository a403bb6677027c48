"""Imported: what every trial needs, imported by one process before it forks for many.

Nothing here may start a thread, as the import of onnxruntime does: a fork has only the thread that forked.
"""

import contextlib
from importlib import import_module
from typing import Final

from torch.onnx._internal.exporter._registration import ONNXRegistry

from beats_search.runtimes import _operators

_MODULES: Final = (
    "beats_search.compression.channel_pruning",
    "beats_search.compression.quantization",
    "beats_search.trial.run",
    "onnxscript.optimizer",
    "torch.export._trace",
    "torchvision",
)

for _name in _MODULES:
    with contextlib.suppress(Exception):  # then each process finds out what is wrong by itself, and tells it
        import_module(_name)
with contextlib.suppress(Exception), _operators.one_table():
    ONNXRegistry.from_torchlib()
