"""Swap: a network in, the seconds that its second file takes out: its weights go into the first one's graph."""

import copy
import tempfile
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median
from typing import Any, Final
from unittest.mock import patch

import torch
from torch import nn

from beats_search.compression._conversion import quantize
from beats_search.runtimes import _onnx_export as exporter
from beats_search.runtimes.onnxruntime import OnnxRuntime
from beats_search.tensors.data import DataBundle, to_float
from beats_search.tensors.structure import Known
from beats_search.trial.recipe import example_of

ASKED_S: Final = 0.05
_TIMES: Final = 9
_CALIBRATED: Final = 64
_COMPARED: Final = 512


def swaps(model: nn.Module, data: DataBundle) -> Mapping[str, Any]:
    """Return what `swap` finds of a network in float and in 8 bits."""
    others = [_moved(model, seed) for seed in range(_TIMES + 1)]
    images = to_float(data.train.inputs[:_CALIBRATED])
    return {"fp32": swap(others, data), "int8": swap([quantize(each, images, 8) for each in others], data)}


def swap(models: list[nn.Module], data: DataBundle) -> Mapping[str, Any]:
    """Return the seconds of exporting the first of some networks that differ in their weights, and those of the others.

    `equal` tells whether the last one's outputs are those of a file that is made without the others, to the bit.
    """
    example, images = example_of(data), to_float(data.validation.inputs[:_COMPARED])
    with tempfile.TemporaryDirectory() as folder:
        with _without_graphs():
            seconds = [_exported(each, example, Path(folder) / "model.onnx") for each in models]
        swapped = OnnxRuntime().load(Path(folder) / "model.onnx").logits(images)
        with _without_graphs():
            alone = OnnxRuntime().deploy(models[-1], example, Path(folder) / "alone.onnx").logits(images)
    first_s, *rest = seconds
    return {
        "first_s": round(first_s, 3),
        "median_s": round(median(rest), 4),
        "longest_s": round(max(rest), 4),
        "n": len(rest),
        "equal": torch.equal(swapped, alone),
    }


def in_words(dataset: str, found: Mapping[str, Any]) -> str:
    """Return a line for each precision."""
    return "\n".join(
        f"{dataset}, {name}: the first export takes {told['first_s']:.2f} s, others {1000 * told['median_s']:.0f} ms "
        f"(at most {1000 * told['longest_s']:.0f}, n = {told['n']}, asked: {1000 * ASKED_S:.0f}), "
        f"outputs {'equal' if told['equal'] else 'DIFFER'}"
        for name, told in found.items()
    )


def _exported(model: nn.Module, example: torch.Tensor, path: Path) -> float:
    began = time.perf_counter()
    exporter.export_onnx(model, example, path)
    return time.perf_counter() - began


def _moved(model: nn.Module, seed: int) -> nn.Module:
    """Return a copy with other weights."""
    random, moved = torch.Generator().manual_seed(seed), copy.deepcopy(model)
    with torch.no_grad():
        for weight in moved.parameters():
            weight.mul_(1 + 0.05 * torch.rand(weight.shape, generator=random))
    return moved.eval()


def _without_graphs() -> AbstractContextManager[object]:
    """Let the exporter begin with none, within."""
    return patch.multiple(exporter, _TEMPLATES=Known(most=32), _OF_ANY_SIZE=Known(most=32))
