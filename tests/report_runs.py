"""Runs made up for the tests of the report: a number of trials in, a believable `RunRecord` out."""

import math
import random
from collections.abc import Mapping
from dataclasses import replace

from beats_search.records.objective import DIRECTIONS, Constraint, Objective
from beats_search.records.outcome import (
    EpochScore,
    Failed,
    Finished,
    Footprint,
    Interval,
    Latency,
    RegionScore,
    Stopped,
    TrialOutcome,
)
from beats_search.records.part import Part, Scalar
from beats_search.records.plan import AccumulationPlan, TrainingPlan, TrialPlan
from beats_search.records.run import RunRecord, TrialRecord

REFERENCE_MS = 0.412
MICRO_BATCHES = 18
REGIONS = ("stem", "layer1", "layer2", "layer3", "head")
ENVIRONMENT: Mapping[str, str] = {
    "cpu": "Intel Xeon Platinum 8481C, 2 cores",
    "isa": "avx512_vnni, amx_int8",
    "system": "Linux 6.1",
    "python": "3.11.9",
    "torch": "2.15.0",
    "onnxruntime": "1.23.0",
}


def objectives(*names: str) -> tuple[Objective, ...]:
    """Return objectives by name, each in its own direction."""
    return tuple(Objective(name=name, direction=DIRECTIONS[name]) for name in names)


def plan(width: int = 64, ratio: float = 0.0, bits: int = 32, lr: float = 0.05, window: int = 1) -> TrialPlan:
    """Return a plan for digits: a residual network, pruned and quantized."""
    return TrialPlan(
        dataset=Part(name="digits"),
        model=Part(name="resnet", settings=(("width", width),)),
        training=TrainingPlan(
            epochs=12,
            optimizer=Part(name="sgd", settings=(("momentum", 0.9),)),
            lr=lr,
            schedule=Part(name="cosine"),
            accumulation=AccumulationPlan(window=window),
        ),
        compression=(
            Part(name="channel_pruning", settings=(("ratio", ratio), ("recovery_epochs", 2))),
            Part(name="quantization", settings=(("bits", bits), ("mode", "qat"), ("recovery_epochs", 1))),
        ),
        runtime=Part(name="onnxruntime", settings=(("batch_size", 1), ("threads", 1))),
    )


def finished(
    accuracy: float = 0.98,
    latency_ms: float = 0.2,
    size_kb: float = 40.0,
    as_: str = "fp32",
    macs: int = 1_600_000,
) -> Finished:
    """Return a finished outcome with 95 % intervals of a believable width."""
    half = 1.96 * math.sqrt(max(accuracy * (1 - accuracy), 0.0) / 288)
    ratio = latency_ms / REFERENCE_MS
    return Finished(
        accuracy=accuracy,
        accuracy_interval=Interval(low=max(0.0, accuracy - 1.2 * half), high=min(1.0, accuracy + 0.8 * half)),
        latency=Latency(
            median_ms=latency_ms,
            interval_ms=Interval(low=0.97 * latency_ms, high=1.04 * latency_ms),
            ratio=ratio,
            ratio_interval=Interval(low=0.97 * ratio, high=1.04 * ratio),
            raw_median_ms=1.01 * latency_ms,
            blocks=40,
            calls=12_000,
            settled=True,
        ),
        footprint=Footprint(size_kb=size_kb, parameters=int(250 * size_kb), macs=macs),
        executed_as=as_,
        sha256="5f" * 32,
        curve=_curve(accuracy, 12),
        stage_seconds={"train": 4.0, "measure": 1.5},
    )


def record(number: int, outcome: TrialOutcome, of: TrialPlan | None = None) -> TrialRecord:
    """Return one trial, 9 seconds long, that began when the one before it ended."""
    params: Mapping[str, Scalar] = {} if number == 0 else {"model.width": 32, "training.lr": 0.05}
    return TrialRecord(
        number=number, params=params, plan=of or plan(), outcome=outcome, began_s=9.0 * number, seconds=9.0
    )


def run_of(*trials: TrialRecord, name: str = "digits", over: tuple[str, ...] = ("accuracy", "latency_ms")) -> RunRecord:
    """Return a run that holds these trials."""
    corner = {"accuracy": 0.1, "latency_ms": 1.1 * REFERENCE_MS, "size_kb": 500.0, "macs": 2e7}
    return RunRecord(
        name=name,
        sampler="tpe",
        seed=0,
        objectives=objectives(*over),
        constraints=(Constraint(name="size_kb", sign="<=", bound=500.0),),
        reference_point={objective: corner[objective] for objective in over},
        trials=trials,
        duplicates=2,
        environment=ENVIRONMENT,
        classes=tuple("0123456789"),
        input_shape=(1, 8, 8),
    )


def realistic_run(seed: int = 0, trials: int = 30, name: str = "digits") -> RunRecord:
    """Return a run in which small int8 networks are slower than fp32, some trials stop, and some fail."""
    random_ = random.Random(seed)
    reference = record(0, finished(accuracy=0.990, latency_ms=REFERENCE_MS, size_kb=310.0), plan())
    rest = [_trial(number, random_) for number in range(1, trials)]
    run = run_of(reference, *rest, name=name)
    return replace(run, test_accuracy={trial.number: outcome.accuracy - 0.012 for trial, outcome in run.finished()})


def in_regions(trial: TrialRecord, names: tuple[str, ...] = REGIONS, epochs: int = 12) -> TrialRecord:
    """Return a trial as if its regions had been updated each at its own time; a failed one stays as it is."""
    random_ = random.Random(trial.number)
    beats = AccumulationPlan(window=random_.choice([4, 8]), trigger=random_.choice([1.2, 1.6, 2.0]), local_error=0.2)
    drawn = replace(trial.plan, training=replace(trial.plan.training, accumulation=beats))
    match trial.outcome:
        case Finished(accuracy=accuracy) as outcome:
            curve = _in_regions(_curve(accuracy, epochs), names, beats.window, random_)
            return replace(trial, plan=drawn, outcome=replace(outcome, curve=curve))
        case Stopped(curve=curve) as outcome:
            told = _in_regions(curve, names, beats.window, random_)
            return replace(trial, plan=drawn, outcome=replace(outcome, curve=told))
    return trial


def beats_run(seed: int = 0, trials: int = 30, names: tuple[str, ...] = REGIONS, epochs: int = 12) -> RunRecord:
    """Return the realistic run, its trials but the reference trained with a trigger and local errors."""
    run = realistic_run(seed, trials)
    return replace(run, trials=(run.trials[0], *(in_regions(trial, names, epochs) for trial in run.trials[1:])))


def _in_regions(
    curve: tuple[EpochScore, ...], names: tuple[str, ...], window: int, random_: random.Random
) -> tuple[EpochScore, ...]:
    """Return the curve with regions that wait ever longer, those near the output longest."""
    scores = []
    for score in curve:
        waits = [
            min(window, 1 + window * random_.uniform(0.7, 1.1) * (0.2 + score.epoch / len(curve)) * (place + 2) / 9)
            for place in range(len(names))
        ]
        regions = tuple(
            RegionScore(
                name=name,
                fires=int(MICRO_BATCHES / wait),
                agreement=1 + random_.random() * (wait - 1),
                waited=wait,
            )
            for name, wait in zip(names, waits, strict=True)
        )
        updates = max(region.fires for region in regions)
        scores.append(replace(score, micro_batches=MICRO_BATCHES, updates=updates, regions=regions))
    return tuple(scores)


def _trial(number: int, random_: random.Random) -> TrialRecord:
    width = random_.choice([16, 32, 64])
    ratio = random_.choice([0.0, 0.0, 0.25, 0.5, 0.7])
    bits = random_.choice([32, 32, 8, 8, 4])
    drawn = plan(width, ratio, bits, random_.choice([0.01, 0.05, 0.2]), random_.choice([1, 2, 4, 8]))
    params: Mapping[str, Scalar] = {
        "model.width": width,
        "training.lr": drawn.training.lr,
        "training.accumulation.window": drawn.training.accumulation.window,
        "compression.0.ratio": ratio,
        "compression.1.bits": bits,
    }
    outcome = _outcome(number, width * (1 - ratio), bits, random_)
    seconds = random_.uniform(6, 14)
    return TrialRecord(
        number=number, params=params, plan=drawn, outcome=outcome, began_s=11.0 * number, seconds=seconds
    )


def _outcome(number: int, width: float, bits: int, random_: random.Random) -> TrialOutcome:
    if number % 11 == 7:
        return Failed(
            stage="train",
            reason="the loss is not finite at epoch 2, lr 0.2",
            detail="Traceback (most recent call last):\n  …\nDivergedError: the loss is not finite at epoch 2",
        )
    accuracy = 0.993 - 0.12 / width - (0.02 if bits == 4 else 0.0) - random_.expovariate(200)
    if number % 6 == 5:
        return Stopped(
            epoch=4, reason=f"0.3 % chance to pass {accuracy:.3f}, the bar at its latency", curve=_curve(0.8, 4)
        )
    if number == 9:
        accuracy = 0.34
    full_ms = REFERENCE_MS * (width / 64) ** 1.8 + 0.012
    latency = full_ms if bits == 32 else full_ms / 4 + 0.04
    as_ = "fp32" if bits == 32 else "int8"
    size_kb = 310 * (width / 64) ** 1.9
    return finished(accuracy, latency * random_.uniform(0.98, 1.02), size_kb * bits / 32, as_, int(40_000 * size_kb))


def _curve(accuracy: float, epochs: int) -> tuple[EpochScore, ...]:
    return tuple(
        EpochScore(
            epoch=epoch,
            train_loss=2.3 * 0.7**epoch,
            accuracy=max(0.0, accuracy - 0.8 * 0.6**epoch),
            seconds=0.35,
        )
        for epoch in range(1, epochs + 1)
    )
