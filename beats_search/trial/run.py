"""Run: a plan in, an outcome out. Trains, compresses, exports, and measures the exported file."""

import hashlib
import tempfile
import time
from collections.abc import Hashable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from beats_search.measuring.blocks import OpenSession, Protocol
from beats_search.measuring.energy import EnergyCounters, check_counted, measure_energy
from beats_search.measuring.footprint import measure_footprint
from beats_search.measuring.latency import measure_latency
from beats_search.measuring.noise import Centre
from beats_search.measuring.quality import accuracy, accuracy_interval, check_finite, check_parity
from beats_search.measuring.quiet import ALONE, QuietWindow
from beats_search.measuring.yardstick import own_yardstick
from beats_search.records.outcome import TIMING, Finished, Interval, Stopped, TrialOutcome
from beats_search.records.plan import TrialPlan
from beats_search.tensors.data import DataBundle, Split, to_float
from beats_search.tensors.fake_quant import ActivationQuantizer
from beats_search.tensors.seams import Engine, KeepGoing, Runtime
from beats_search.training.fit import fit
from beats_search.trial.likeness import file_key
from beats_search.trial.recipe import (
    build_model,
    example_of,
    load_data,
    recovery,
    runtime_of,
    stage_seed,
)
from beats_search.trial.stages import StageTree
from beats_search.trial.store import Store
from beats_search.trial.timing import Timing
from beats_search.trial.timings import Timed, Timings

_PARITY_INPUTS = 256
_LEAST_S: Final = 0.3
_WORTH_TIMING: Final = 0.1
"""The share of what a trial took otherwise that its timing may take, for which all others keep still."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What latencies are paired with: a file's sessions, and its median once that is settled.

    `file` is where it is, for others to open it.
    """

    open: OpenSession
    median_ms: float | None = None
    file: Path = Path()


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruments:
    """What a trial works with: the window in which it is quiet, counters where energy counts, and what is reused.

    That is trainings in a `store`, and in `timed` the latencies of files by what they depend on.
    """

    window: QuietWindow = ALONE
    counters: EnergyCounters | None = None
    store: Store | None = None
    timed: Timings | None = None


_USUAL: Final = Instruments()


def run_trial(
    plan: TrialPlan,
    folder: Path,
    reference: Reference,
    keep_going: KeepGoing = lambda _: True,
    instruments: Instruments = _USUAL,
) -> TrialOutcome:
    """Try one plan; a finished trial leaves its `model.onnx` or `model.pt2` in `folder`, any other leaves nothing.

    It is measured, and each of its batches and stages computed, when the window allows it. Trainings that are in
    the store are not computed again, which changes nothing but the time.
    Whatever goes wrong becomes `Failed`, but a full disk, which raises SearchEndedError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    timing = Timing()
    try:
        with tempfile.TemporaryDirectory(prefix=".trial-", dir=folder.parent) as aside:
            outcome = _recipe(plan, Path(aside), reference, keep_going, timing, instruments)
            if isinstance(outcome, Finished):
                folder.mkdir(exist_ok=True)
                (Path(aside) / outcome.model_file).replace(folder / outcome.model_file)
            return outcome
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a trial runs the user's code, which may raise anything
        return timing.failed(error)


def test_accuracy(plan: TrialPlan, model: Path, window: QuietWindow) -> float:
    """Return the accuracy of an exported file on the test split, which no search has seen."""
    data = load_data(plan.dataset)
    with window.pace():
        return _accuracy(runtime_of(plan).load(model), data.test)


def _recipe(
    plan: TrialPlan, aside: Path, reference: Reference, keep_going: KeepGoing, timing: Timing, instruments: Instruments
) -> Finished | Stopped:
    with timing.stage("dataset"):
        data = load_data(plan.dataset)
    with timing.stage("model"):
        if instruments.counters:
            check_counted(plan.runtime)
        model = build_model(plan, data)
    pace = instruments.window.pace
    own_yardstick().read()  # before and after training, so that the first timing knows what is fast here
    with timing.stage("training"):
        tree, seed = StageTree(plan, data, instruments.store), stage_seed(plan, "training")
        with tree.training(model) as begun:
            trained = fit(model, data, plan.training, seed=seed, keep_going=keep_going, pace=pace, checkpoint=begun)
    if trained.stopped_at is not None:
        return Stopped(
            epoch=trained.stopped_at,
            reason="the search asked for no more epochs",
            curve=trained.curve,
            reused_seconds=tree.reused_seconds,
        )
    own_yardstick().read()
    with timing.stage("compression"):
        compressed = tree.compressed(trained.model, recovery(plan, data, pace), instruments.window)
    with timing.stage("export"), pace():
        runtime = runtime_of(plan)
        engine = runtime.deploy(compressed, example_of(data), aside / f"model{runtime.suffix}")
        _check_file(runtime, compressed, engine, data)
    with timing.stage(TIMING):
        with pace():
            share = _accuracy(engine, data.validation)
        like = file_key(compressed, plan, data.input_shape) if instruments.timed is not None else None
        timed = _timed(plan, engine, reference, instruments, like, sum(timing.seconds.values()))
        energy = _energy(engine, instruments)
        footprint = measure_footprint(compressed, example_of(data), engine.path)
    return Finished(
        accuracy=share,
        accuracy_interval=accuracy_interval(share, len(data.validation)),
        latency=timed.latency,
        footprint=footprint,
        executed_as=engine.executed_as,
        sha256=hashlib.sha256(engine.path.read_bytes()).hexdigest(),
        curve=trained.curve,
        stage_seconds=dict(timing.seconds),
        model_file=engine.path.name,
        energy_mj=energy.value if energy else None,
        energy_interval_mj=Interval(low=energy.low, high=energy.high) if energy else None,
        reused_seconds=tree.reused_seconds | ({} if timed.file == str(engine.path) else {TIMING: timed.seconds}),
    )


def _timed(
    plan: TrialPlan, engine: Engine, reference: Reference, tools: Instruments, like: Hashable, spent: float
) -> Timed:
    """Return the latency of a file, or that of one like it, where that is known narrowly enough.

    Timing, and waiting for a neighbour to leave, takes a small share of all else, which `spent` seconds: what comes
    near the front is timed once more at the end of a search.
    """

    def measured() -> Timed:
        began = time.perf_counter()
        usual = Protocol()
        worth_s = _WORTH_TIMING * spent
        budget_s = min(max(_LEAST_S, worth_s), usual.budget_s)
        patience = min(max(1.0, worth_s / budget_s), usual.patience)
        with tools.window.measuring():
            latency = measure_latency(
                engine.open,
                reference.open,
                reference_median_ms=reference.median_ms,
                seed=stage_seed(plan, "measuring"),
                protocol=replace(usual, budget_s=budget_s, patience=patience),
            )
        return Timed(file=str(engine.path), latency=latency, seconds=time.perf_counter() - began)

    if tools.timed is None:
        return measured()
    return tools.timed.found(like, reference, measured)


def _energy(engine: Engine, instruments: Instruments) -> Centre | None:
    """Return the energy of a file, which depends on its weights, too; None where it does not count."""
    if instruments.counters is None:
        return None
    with instruments.window.measuring():
        return measure_energy(engine.open, instruments.counters)


def _accuracy(engine: Engine, split: Split) -> float:
    return accuracy(engine.logits(to_float(split.inputs)), split.labels)


def _check_file(runtime: Runtime, model: nn.Module, engine: Engine, data: DataBundle) -> None:
    """Raise ParityError when a file is not the model; where the runtime is asked to round it, that is what it costs."""
    exported, expected = _both_logits(model, engine, data)
    check_finite(exported)
    if runtime.faithful:
        check_parity(exported, expected, exact=_is_exact(model, engine))


def _is_exact(model: nn.Module, engine: Engine) -> bool:
    """Tell whether file and model compute the same but for the last digits; on a grid, these can become a step."""
    return engine.executed_as == "fp32" and not any(isinstance(part, ActivationQuantizer) for part in model.modules())


def _both_logits(model: nn.Module, engine: Engine, data: DataBundle) -> tuple[Tensor, Tensor]:
    """Return the file's and the model's logits of the same validation inputs."""
    inputs = to_float(data.validation.drawn(_PARITY_INPUTS, seed=0).inputs)
    with torch.inference_mode():
        return engine.logits(inputs), model(inputs)
