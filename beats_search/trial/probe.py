"""Probe: a plan in, what its file would weigh and how fast it would run out, without training.

Neither depends on what is learned, unless a technique lets trained weights decide, which it says. So a
structure is exported and timed once, and plans that differ in their training alone share what was found.
"""

import copy
import tempfile
import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, final

import torch
from torch import nn

from beats_search import plugins
from beats_search.measuring.blocks import Protocol
from beats_search.measuring.footprint import measure_footprint
from beats_search.measuring.latency import measure_latency
from beats_search.measuring.quiet import ALONE, QuietWindow
from beats_search.records.outcome import Footprint, Latency
from beats_search.records.part import Part
from beats_search.records.plan import TrialPlan
from beats_search.tensors.data import DataBundle
from beats_search.tensors.network import macs
from beats_search.tensors.seams import Engine
from beats_search.tensors.structure import Known, structure_of
from beats_search.training.devices import find_device
from beats_search.training.fit import fit
from beats_search.trial.keys import recovery_epochs
from beats_search.trial.likeness import file_key
from beats_search.trial.recipe import build_model, compress, example_of, load_data, runtime_of, stage_seed
from beats_search.trial.run import Reference
from beats_search.trial.timings import Timed, Timings

_TIMED_BATCHES: Final = 4
_CALIBRATION_IMAGES: Final = 8  # where the ranges of an untrained network end changes neither time nor size
_UNEVENNESS: Final = 1e-3
_MOST_KEPT: Final = 1024
_TRAINING: Final = "training."
_ADDING_LAYERS: Final = "training.batch_norm"
_RECOVERING: Final = ".recovery_epochs"
_GLANCE: Final = Protocol(half_width=0.08, budget_s=0.25, min_rounds=6, min_calls=2, patience=1.0)
"""Enough to choose by; what comes near the front is timed again at the end of a search."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What can be known before training: weight, latency, kernels, and the seconds of measuring and of one epoch."""

    footprint: Footprint
    latency: Latency
    executed_as: str
    measuring_seconds: float
    epoch_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedFile:
    """What was found of an exported file, the seconds that this took, and those of the timing among them."""

    footprint: Footprint
    latency: Latency
    executed_as: str
    seconds: float
    timing_seconds: float = 0.0


@final
@dataclass(frozen=True, slots=True)
class Probes:
    """What has been found so far: of files by structure, runtime and reference; of epochs by structure and training."""

    files: Known[ProbedFile] = field(default_factory=lambda: Known(_MOST_KEPT))
    epoch_seconds: Known[float] = field(default_factory=lambda: Known(_MOST_KEPT))


_PROBES: Final = Probes()


def probe(plan: TrialPlan, reference: Reference, window: QuietWindow = ALONE, probes: Probes = _PROBES) -> Probe:
    """Build and compress the untrained candidate; export and measure it unless its like has been measured.

    It is exported and timed when `window` allows it. The seconds of an epoch are extrapolated from a few batches
    on a copy that is thrown away.
    """
    data = load_data(plan.dataset)
    model = build_model(plan, data)
    file = _file(model, plan, reference, window, probes)
    seconds = probes.epoch_seconds.found(
        _epoch_key(model, plan, data), lambda: _epoch_seconds(model, data, plan, window)
    )
    return Probe(
        footprint=file.footprint,
        latency=file.latency,
        executed_as=file.executed_as,
        measuring_seconds=file.seconds,
        epoch_seconds=seconds,
    )


def probe_file(
    plan: TrialPlan,
    reference: Reference,
    window: QuietWindow = ALONE,
    probes: Probes = _PROBES,
    timed: Timings | None = None,
) -> ProbedFile:
    """Build and compress the untrained candidate; export and measure it unless its like has been measured.

    What is measured is noted in `timed`.
    """
    return _file(build_model(plan, load_data(plan.dataset)), plan, reference, window, probes, timed)


def foreseen(plan: TrialPlan, found: ProbedFile) -> Mapping[str, float]:
    """Return those of latency_ms, size_kb and macs, by name, that will hold for the trained plan too."""
    weight = found.footprint
    values = {"latency_ms": found.latency.median_ms, "size_kb": weight.size_kb, "macs": float(weight.macs)}
    open_ones = unforeseen(plan)
    return {name: value for name, value in values.items() if name not in open_ones}


def decides(path: str) -> bool:
    """Tell whether what is foreseen of plans may depend on the knob at a path: not on training that adds no layers."""
    if path.startswith(_TRAINING):
        return path.startswith(_ADDING_LAYERS)
    return not path.endswith(_RECOVERING)


def unforeseen(plan: TrialPlan) -> frozenset[str]:
    """Return the names of the quantities that a plan's techniques leave to the trained weights."""
    techniques = [plugins.make("compression", part) for part in plan.compression]
    return frozenset().union(*(getattr(technique, "unforeseen", ()) for technique in techniques))


def trial_seconds(plan: TrialPlan, found: Probe) -> float:
    """Return the estimated seconds of a plan's training, of the recoveries of its techniques, and of measuring."""
    recovery = sum(recovery_epochs(part) for part in plan.compression)
    return (plan.training.epochs + recovery) * found.epoch_seconds + found.measuring_seconds


def deploy_untrained(plan: TrialPlan, path: Path, window: QuietWindow = ALONE) -> Engine:
    """Export the untrained model of a plan to `path`, with the ending of its runtime: as fast as the trained one."""
    data = load_data(plan.dataset)
    compressed = _compressed(_as_if_trained(build_model(plan, data)), plan, data, window)
    runtime = runtime_of(plan)
    with window.pace():
        return runtime.deploy(compressed, example_of(data), path.with_suffix(runtime.suffix))


def check_device(plan: TrialPlan) -> None:
    """Raise ValueError when the device that a plan trains on is not on this machine."""
    find_device(plan.training.device)


def count_macs(plan: TrialPlan) -> int:
    """Return the multiply-accumulates of a plan's model for one input, before compression."""
    data = load_data(plan.dataset)
    return macs(build_model(plan, data), example_of(data))


def _file(
    model: nn.Module,
    plan: TrialPlan,
    reference: Reference,
    window: QuietWindow,
    probes: Probes,
    timed: Timings | None = None,
) -> ProbedFile:
    data = load_data(plan.dataset)
    compressed = _compressed(_as_if_trained(model), plan, data, window)
    like = file_key(compressed, plan, data.input_shape)

    def measured() -> ProbedFile:
        found = _measured(compressed, plan, reference, window)
        if timed is not None and "latency_ms" not in unforeseen(plan):
            timed.note(like, reference, Timed(file="", latency=found.latency, seconds=found.timing_seconds))
        return found

    return probes.files.found(None if like is None else (like, reference), measured)


def _as_if_trained(model: nn.Module) -> nn.Module:
    """Return a copy whose vectors differ from one another, as those of a trained one: a file holds equal ones once."""
    uneven, random = copy.deepcopy(model), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for vector in (*uneven.parameters(), *uneven.buffers()):
            if vector.dim() == 1 and vector.is_floating_point():
                vector.add_(torch.rand(vector.shape, generator=random), alpha=_UNEVENNESS)
    return uneven


def _compressed(model: nn.Module, plan: TrialPlan, data: DataBundle, window: QuietWindow = ALONE) -> nn.Module:
    few = replace(data, train=data.train.first(_CALIBRATION_IMAGES))
    return compress(model, plan, few, _untrained, window)


def _untrained(model: nn.Module, *_: object, **__: object) -> nn.Module:
    return model


def _measured(compressed: nn.Module, plan: TrialPlan, reference: Reference, window: QuietWindow) -> ProbedFile:
    example, runtime = example_of(load_data(plan.dataset)), runtime_of(plan)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        with window.pace():
            engine = runtime.deploy(compressed, example, Path(folder) / f"probe{runtime.suffix}")
        with window.measuring():
            timing = time.perf_counter()
            latency = measure_latency(
                engine.open,
                reference.open,
                reference_median_ms=reference.median_ms,
                seed=stage_seed(plan, "measuring"),
                protocol=_GLANCE,
            )
            timing = time.perf_counter() - timing
        return ProbedFile(
            footprint=measure_footprint(compressed, example, engine.path),
            latency=latency,
            executed_as=engine.executed_as,
            seconds=time.perf_counter() - began,
            timing_seconds=timing,
        )


def _epoch_key(model: nn.Module, plan: TrialPlan, data: DataBundle) -> Hashable | None:
    """Return all that an epoch's seconds depend on."""
    structure = structure_of(model)
    training = replace(plan.training, epochs=1, lr=1.0, schedule=Part(name="constant"))
    return None if structure is None else (structure, training, data.input_shape, len(data.train))


def _epoch_seconds(model: nn.Module, data: DataBundle, plan: TrialPlan, window: QuietWindow) -> float:
    count = min(len(data.train), _TIMED_BATCHES * plan.training.batch_size)
    few = replace(data, train=data.train.first(count), validation=data.validation.first(1))
    short = replace(plan.training, epochs=1)
    fit(model, few, short, seed=stage_seed(plan, "training"), pace=window.pace)  # the first call also loads kernels
    began = time.perf_counter()
    fit(model, few, short, seed=stage_seed(plan, "training"), pace=window.pace)
    return (time.perf_counter() - began) * len(data.train) / count
