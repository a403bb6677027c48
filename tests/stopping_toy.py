"""Learning curves with a known law, and a search over them that costs nothing, for the tests of stopping early."""

import math
import random
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from beats_search.records.objective import Objective
from beats_search.records.outcome import EpochScore, Finished, Footprint, Interval, Latency, Stopped, TrialOutcome
from beats_search.records.part import Part
from beats_search.records.plan import TrainingPlan, TrialPlan
from beats_search.records.run import RunRecord, TrialRecord
from beats_search.search.stopping import GoOn, Stop, Stopping, Verdict, judge

ACCURACY = Objective(name="accuracy", direction="maximize")
LATENCY = Objective(name="latency_ms", direction="minimize")
SIZE = Objective(name="size_kb", direction="minimize")
IMAGES: Final = 1000
EPOCHS: Final = 16
_Z: Final = 1.959963984540054


def plan(width: int = 64, lr: float = 0.03, ratio: float = 0.0, bits: int = 32, epochs: int = EPOCHS) -> TrialPlan:
    """Return a plan of the toy space."""
    return TrialPlan(
        dataset=Part(name="toy"),
        model=Part(name="toy", settings=(("width", width),)),
        training=TrainingPlan(epochs=epochs, lr=lr),
        compression=(
            Part(name="channel_pruning", settings=(("ratio", ratio), ("recovery_epochs", 2))),
            Part(name="quantization", settings=(("bits", bits),)),
        ),
    )


def finished(
    accuracy: float, latency_ms: float, curve: tuple[EpochScore, ...] = (), *, size_kb: float = 1.0
) -> Finished:
    """Return a finished outcome whose accuracy was measured on `IMAGES` images."""
    return Finished(
        accuracy=accuracy,
        accuracy_interval=wilson(accuracy),
        latency=Latency(
            median_ms=latency_ms,
            interval_ms=Interval(low=latency_ms, high=latency_ms),
            ratio=1.0,
            ratio_interval=Interval(low=1.0, high=1.0),
            raw_median_ms=latency_ms,
            blocks=1,
            calls=1,
            settled=True,
        ),
        footprint=Footprint(size_kb=size_kb, parameters=1, macs=1),
        executed_as="fp32",
        sha256="",
        curve=curve,
        stage_seconds={},
    )


def wilson(share: float, images: int = IMAGES) -> Interval:
    """Return the 95 % interval of an accuracy."""
    spread = _Z * math.sqrt(share * (1 - share) / images + _Z**2 / (4 * images**2))
    middle, scale = share + _Z**2 / (2 * images), 1 + _Z**2 / images
    return Interval(low=max(0.0, (middle - spread) / scale), high=min(1.0, (middle + spread) / scale))


def curve_of(*accuracies: float) -> tuple[EpochScore, ...]:
    """Return a learning curve of these readings, one second an epoch."""
    return tuple(
        EpochScore(epoch=epoch, train_loss=1.0, accuracy=accuracy, seconds=1.0)
        for epoch, accuracy in enumerate(accuracies, start=1)
    )


def run_of(*trials: TrialRecord, objectives: tuple[Objective, ...] = (ACCURACY, LATENCY)) -> RunRecord:
    """Return a run of these trials."""
    corner = {"accuracy": 0.1, "latency_ms": 200.0, "size_kb": 100.0}
    return RunRecord(
        name="toy",
        sampler="random_search",
        seed=0,
        objectives=objectives,
        constraints=(),
        reference_point={objective.name: corner[objective.name] for objective in objectives},
        trials=trials,
        duplicates=0,
        environment={},
        classes=("a", "b"),
        input_shape=(1, 2, 2),
    )


def record(number: int, of: TrialPlan, outcome: TrialOutcome, *, spared_at: int | None = None) -> TrialRecord:
    """Return a trial that took a second, the one after the other."""
    return TrialRecord(
        number=number, params={}, plan=of, outcome=outcome, began_s=float(number), seconds=1.0, spared_at=spared_at
    )


def drawn(random_: random.Random) -> TrialPlan:
    """Return a plan, each value as likely as any other."""
    return plan(
        width=random_.choice((8, 16, 32, 64)),
        lr=10 ** random_.uniform(-2.5, -0.5),
        ratio=random_.choice((0.0, 0.25, 0.5, 0.75)),
        bits=random_.choice((32, 8, 4)),
    )


def grown(of: TrialPlan, seed: str) -> Finished:
    """Return what a plan would end as: the known law, with noise that is drawn from the seed.

    Log-odds of the dense model approach those that width and learning rate allow, as a power of the
    epoch; what compression costs grows with the ratio, and is large at 4 bits.
    """
    noise = random.Random(seed)
    width, ratio, bits = (float(str(part[key])) for part, key in _knobs(of))
    best = 1.5 + 0.5 * math.log2(width / 8) - 1.2 * math.log10(of.training.lr / 0.03) ** 2 + noise.gauss(0, 0.25)
    pace = 0.8 + 0.2 * math.log10(of.training.lr / 0.03)
    dense = [best - 2.5 * epoch**-pace for epoch in range(1, of.training.epochs + 1)]
    damage = 0.3 * (4 * ratio) ** 1.5 + {32: 0.0, 8: 0.05, 4: 0.5}[int(bits)]
    final = dense[-1] - damage * math.exp(noise.gauss(0, 0.3)) + noise.gauss(0, 0.1)
    latency_ms = width**1.2 * (1 - ratio) * {32: 1.0, 8: 0.6, 4: 0.5}[int(bits)] * (1 + noise.gauss(0, 0.01))
    readings = [counted(odds + noise.gauss(0, 0.15)) for odds in dense]
    return finished(counted(final), latency_ms, curve_of(*readings))


def counted(odds: float) -> float:
    """Return log-odds as a share of the validation images."""
    return round(IMAGES / (1 + math.exp(-odds))) / IMAGES


def _knobs(of: TrialPlan) -> tuple[tuple[Part, str], ...]:
    return (of.model, "width"), (of.compression[0], "ratio"), (of.compression[1], "bits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """A search with stopping: the run, and how many of the stopped trials would have exceeded their bar."""

    run: RunRecord
    stopped: int
    false_stops: int


def searched(trials: int, seed: int, stopping: Stopping) -> Searched:
    """Search the toy space with stopping; trial by trial the same plans and noise as `unstopped`."""
    run, stops, wrong = run_of(), 0, 0
    for told in unstopped(trials, seed).trials:
        assert isinstance(told.outcome, Finished)
        verdicts = followed(stopping, run, told.number, told.plan, told.outcome)
        hits = [verdict for verdict in verdicts if not isinstance(verdict, GoOn)]
        if hits and isinstance(hits[0], Stop):
            stops, wrong = stops + 1, wrong + (told.outcome.accuracy > hits[0].outlook.bar)
            told = replace(told, outcome=_stopped(hits[0], told.outcome))  # noqa: PLW2901 - it is the same trial
        elif hits:
            told = replace(told, spared_at=hits[0].outlook.epoch)  # noqa: PLW2901 - the same
        run = replace(run, trials=(*run.trials, told))
    return Searched(run=run, stopped=stops, false_stops=wrong)


@lru_cache
def unstopped(trials: int, seed: int) -> RunRecord:
    """Return a random search of the toy space in which every trial finishes."""
    chance = random.Random(seed)
    plans = [plan(), *(drawn(chance) for _ in range(1, trials))]
    return run_of(*(record(number, of, grown(of, f"{seed}/{number}")) for number, of in enumerate(plans)))


def followed(stopping: Stopping, run: RunRecord, number: int, of: TrialPlan, whole: Finished) -> list[Verdict]:
    """Return the verdicts on a trial, epoch by epoch, until it is stopped."""
    verdicts: list[Verdict] = []
    for epoch in range(1, len(whole.curve) + 1):
        known = {"latency_ms": whole.latency.median_ms}
        verdicts.append(judge(stopping, run, number=number, plan=of, known=known, curve=whole.curve[:epoch]))
        if isinstance(verdicts[-1], Stop):
            break
    return verdicts


def _stopped(stop: Stop, whole: Finished) -> Stopped:
    return Stopped(epoch=stop.outlook.epoch, reason=stop.reason, curve=whole.curve[: stop.outlook.epoch])
