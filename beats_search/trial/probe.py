"""Probe: a plan in, what its file would weigh and how fast it would run out, without training."""

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from beats_search.measuring.footprint import macs, measure_footprint
from beats_search.measuring.latency import measure_latency
from beats_search.records.outcome import Footprint, Latency
from beats_search.records.part import Part
from beats_search.records.plan import TrialPlan
from beats_search.tensors.data import DataBundle
from beats_search.tensors.seams import Engine
from beats_search.training.devices import find_device
from beats_search.training.fit import fit
from beats_search.trial.recipe import build_model, compress, example_of, load_data, runtime_of, stage_seed
from beats_search.trial.run import Reference

_TIMED_BATCHES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What can be known before training: weight, latency, kernels, and the seconds of one epoch."""

    footprint: Footprint
    latency: Latency
    executed_as: str
    epoch_seconds: float


def probe(plan: TrialPlan, reference: Reference) -> Probe:
    """Build, compress and export the untrained candidate and measure its file.

    The seconds of an epoch are extrapolated from a few batches on a copy that is thrown away.
    """
    data = load_data(plan.dataset)
    model = build_model(plan, data)
    compressed = compress(model, plan, data, _untrained)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.onnx"
        engine = runtime_of(plan).deploy(compressed, example_of(data), path)
        return Probe(
            footprint=measure_footprint(compressed, example_of(data), path),
            latency=measure_latency(
                engine.open,
                reference.open,
                reference_median_ms=reference.median_ms,
                seed=stage_seed(plan, "measuring"),
            ),
            executed_as=engine.executed_as,
            epoch_seconds=_epoch_seconds(model, data, plan),
        )


def trial_seconds(plan: TrialPlan, found: Probe) -> float:
    """Return the estimated seconds of a plan's training and of the recoveries of its techniques."""
    recovery = sum(_recovery_epochs(part) for part in plan.compression)
    return (plan.training.epochs + recovery) * found.epoch_seconds


def deploy_untrained(plan: TrialPlan, path: Path) -> Engine:
    """Export the untrained model of a plan to `path`: as fast as the trained one will be."""
    data = load_data(plan.dataset)
    compressed = compress(build_model(plan, data), plan, data, _untrained)
    return runtime_of(plan).deploy(compressed, example_of(data), path)


def check_device(plan: TrialPlan) -> None:
    """Raise ValueError when the device that a plan trains on is not on this machine."""
    find_device(plan.training.device)


def count_macs(plan: TrialPlan) -> int:
    """Return the multiply-accumulates of a plan's model for one input, before compression."""
    data = load_data(plan.dataset)
    return macs(build_model(plan, data), example_of(data))


def _recovery_epochs(part: Part) -> int:
    epochs = dict(part.settings).get("recovery_epochs", 0)
    return epochs if isinstance(epochs, int) else 0


def _untrained(model: nn.Module, _: int) -> nn.Module:
    return model


def _epoch_seconds(model: nn.Module, data: DataBundle, plan: TrialPlan) -> float:
    count = min(len(data.train), _TIMED_BATCHES * plan.training.batch_size)
    few = replace(data, train=data.train.first(count), validation=data.validation.first(1))
    short = replace(plan.training, epochs=1)
    fit(model, few, short, seed=stage_seed(plan, "training"))  # the first call also loads kernels
    began = time.perf_counter()
    fit(model, few, short, seed=stage_seed(plan, "training"))
    return (time.perf_counter() - began) * len(data.train) / count
