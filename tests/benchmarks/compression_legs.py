"""Legs: a dense network, its data and a folder in, files of one way to compress it and their accuracies out."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from onnxruntime import quantization as ort_quantization
from torch import Generator, Tensor, nn

from beats_search.measuring.quality import accuracy
from beats_search.records.part import Part
from beats_search.records.plan import TrialPlan
from beats_search.runtimes._nncf import quantize_with_nncf
from beats_search.runtimes.onnxruntime import OnnxRuntime
from beats_search.runtimes.openvino import OpenVino
from beats_search.runtimes.torch_eager import TorchEager
from beats_search.tensors.data import DataBundle, to_float
from beats_search.tensors.network import macs
from beats_search.tensors.seams import Engine, Runtime
from beats_search.trial.recipe import compress, example_of, recovery

CALIBRATION_IMAGES: Final = 512
BITS: Final = (8, 4, 3, 2)
QAT_EPOCHS: Final = {"mnist": 1, "cifar10": 2}
RATIOS: Final = (0.5, 0.625, 0.75, 0.875)
"""Shares of the channels that go from the networks for MNIST."""
INSIDE_EARLY: Final = ("layer1.*.body.0", "layer2.*.body.0")
"""Of the blocks of the first two stages, whose weights are few, the convolution that no shortcut depends on."""
BOTH: Final = ("onnxruntime", "openvino")
RUNTIMES: Final[Mapping[str, Callable[[int], Runtime]]] = {
    "onnxruntime": lambda batch: OnnxRuntime(threads=1, batch_size=batch),
    "openvino": lambda batch: OpenVino(threads=1, batch_size=batch),
    "torch_eager": lambda batch: TorchEager(threads=1, batch_size=batch),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One network to compress: its plan, its data, its trained weights, and the folder of its results."""

    plan: TrialPlan
    data: DataBundle
    model: nn.Module
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One way: its name, the runtimes that its files run on, and what writes them: runtime's name to file."""

    name: str
    runtimes: tuple[str, ...]
    write: Callable[[Case, "Leg"], Mapping[str, Path]]
    compression: tuple[Part, ...] = ()


def legs(dataset: str) -> tuple[Leg, ...]:
    """Return all ways that are compared on a data set."""
    qat = QAT_EPOCHS[dataset]
    return (
        Leg(name="fp32", runtimes=("torch_eager", *BOTH), write=_ours),
        Leg(name="quantize_static", runtimes=("onnxruntime",), write=_quantize_static),
        Leg(name="nncf", runtimes=("openvino",), write=_nncf),
        *(_ours_on_both(f"ptq {bits}", _bits(bits, 0)) for bits in BITS),
        *(_ours_on_both(f"qat {bits}", _bits(bits, qat)) for bits in BITS),
        *_pruned(dataset),
    )


def run(case: Case, leg: Leg) -> Mapping[str, Any]:
    """Return the accuracies and sizes of a leg's files; from its record where it was run before."""
    record = case.folder / f"{leg.name.replace(' ', '_')}.json"
    if not record.exists():
        began = time.process_time()
        files = leg.write(case, leg)
        found = {
            "leg": leg.name,
            "cpu_seconds": round(time.process_time() - began, 1),
            "files": {name: _facts(case, RUNTIMES[name](32).load(file)) for name, file in files.items()},
        }
        aside = record.with_suffix(".part")
        aside.write_text(json.dumps(found, indent=1))
        aside.rename(record)
    facts: Mapping[str, Any] = json.loads(record.read_text())
    return facts


def _bits(bits: int, epochs: int) -> Part:
    mode = "qat" if epochs else "ptq"
    return Part(name="quantization", settings=(("bits", bits), ("mode", mode), ("recovery_epochs", epochs)))


def _pruned(dataset: str) -> tuple[Leg, ...]:
    """Return the ways that take channels away; from networks for CIFAR-10 fewer, with a long recovery."""
    if dataset == "cifar10":
        fewer = _narrowed(ratio=0.25, recovery_epochs=15, distillation=0.9)
        early = _narrowed(ratio=0.5, layers=INSIDE_EARLY, recovery_epochs=10, distillation=0.9)
        return (
            _ours_on_both("pruned 0.25 ptq 8", fewer, _bits(8, 0)),
            _ours_on_both("pruned 0.5 inside early ptq 8", early, _bits(8, 0)),
        )
    everywhere = {ratio: _narrowed(ratio=ratio, recovery_epochs=1, distillation=0.5) for ratio in RATIOS}
    return (
        *(_ours_on_both(f"pruned {ratio} qat 8", part, _bits(8, 1)) for ratio, part in everywhere.items()),
        _ours_on_both("pruned 0.5 qat 4", everywhere[0.5], _bits(4, 1)),
    )


def _narrowed(**settings: Any) -> Part:  # noqa: ANN401 - whatever pruning takes
    return Part(name="channel_pruning", settings=(*tuple(settings.items()), ("round_to", 8)))


def _ours_on_both(name: str, *compression: Part) -> Leg:
    return Leg(name=name, runtimes=BOTH, write=_ours, compression=compression)


def _ours(case: Case, leg: Leg) -> Mapping[str, Path]:
    plan = replace(case.plan, compression=leg.compression)
    compressed = compress(case.model, plan, case.data, recovery(plan, case.data))
    files = {}
    for name in leg.runtimes:
        runtime = RUNTIMES[name](32)
        path = case.folder / f"{leg.name.replace(' ', '_')}-{name}{runtime.suffix}"
        files[name] = runtime.deploy(compressed, example_of(case.data), path).path
    print(f"    {leg.name}: {macs(compressed, example_of(case.data)) / 1e6:.1f} MMACs", flush=True)
    return files


def _quantize_static(case: Case, leg: Leg) -> Mapping[str, Path]:
    """Quantize as onnxruntime's documentation recommends for a CPU with VNNI: U8S8, per channel, preprocessed."""
    plain, prepared = case.folder / "static-plain.onnx", case.folder / "static-prepared.onnx"
    OnnxRuntime().deploy(case.model, example_of(case.data), plain)
    ort_quantization.shape_inference.quant_pre_process(str(plain), str(prepared))
    out = case.folder / f"{leg.name}-onnxruntime.onnx"
    ort_quantization.quantize_static(
        str(prepared),
        str(out),
        _Reader(_calibration(case)),
        quant_format=ort_quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=ort_quantization.QuantType.QUInt8,
        weight_type=ort_quantization.QuantType.QInt8,
    )
    return {"onnxruntime": out}


def _nncf(case: Case, leg: Leg) -> Mapping[str, Path]:
    plain, out = case.folder / "nncf-plain.onnx", case.folder / f"{leg.name}-openvino.xml"
    OnnxRuntime().deploy(case.model, example_of(case.data), plain)
    quantize_with_nncf(plain, _calibration(case), out)
    return {"openvino": out}


def _calibration(case: Case) -> Tensor:
    order = torch.randperm(len(case.data.train), generator=Generator().manual_seed(case.plan.seed))
    return to_float(case.data.train.inputs[order[:CALIBRATION_IMAGES]])


class _Reader(ort_quantization.CalibrationDataReader):  # type: ignore[misc]  # untyped library
    def __init__(self, images: Tensor) -> None:
        self._batches = iter(torch.split(images, 32))

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"input": batch.numpy()}


def _facts(case: Case, engine: Engine) -> Mapping[str, Any]:
    shares = {
        name: accuracy(engine.logits(to_float(split.inputs)), split.labels)
        for name, split in (("validation", case.data.validation), ("test", case.data.test))
    }
    size = sum(
        path.stat().st_size for path in engine.path.parent.glob(f"{engine.path.stem}.*") if path.suffix != ".json"
    )
    return {"path": engine.path.name, "executed_as": engine.executed_as, "size_kb": size / 1000, **shares}
