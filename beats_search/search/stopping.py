"""Stopping: a run, and one of its trials after an epoch in; whether it is worth another epoch out.

A trial has one bar: the best accuracy already reached at its costs or less. It is stopped when its
final accuracy will hardly exceed that. Nothing here trains, waits or writes.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, final

from beats_search.records.objective import Objective
from beats_search.records.outcome import EpochScore, Finished
from beats_search.records.plan import TrialPlan
from beats_search.records.run import REFERENCE, RunRecord
from beats_search.search.forecast import Reading, forecast

_UNITS: Final = {"latency_ms": " ms", "size_kb": " kB", "macs": " multiply-accumulates", "energy_mj": " mJ"}
_Z: Final = 1.959963984540054  # 97.5 % quantile of the normal distribution
_LEAST_SHOWN: Final = 0.005
_FEWEST_IMAGES: Final = 100


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """When a trial is stopped: when its final accuracy exceeds its bar with a probability below `delta`.

    None is before `fewest` trials have finished. A share of the trials, `spared`, goes on all the
    same, so that it is found out how often that would have been wrong.
    """

    delta: float = 0.05
    fewest: int = 8
    spared: float = 0.05

    def __post_init__(self) -> None:
        """Refuse shares that are none, and forecasts from nothing."""
        if not 0 < self.delta < 1:
            raise ValueError(f"delta is a probability and needs to be above 0 and below 1, got {self.delta}")
        if self.fewest < 1:
            raise ValueError(f"fewest needs to be at least 1 finished trial, got {self.fewest}")
        if not 0 <= self.spared <= 1:
            raise ValueError(f"spared is a share and needs to be between 0 and 1, got {self.spared}")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is expected of a trial after an epoch: its final accuracy, and the probability that it exceeds the bar."""

    epoch: int
    bar: float
    expected: float
    probability: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class GoOn:
    """The trial goes on; None where there was nothing to judge by."""

    outlook: Outlook | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """The trial is to be stopped, for a reason in one sentence."""

    outlook: Outlook
    reason: str


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Spare:
    """The trial would be stopped for this reason, but goes on, to find out how often that is wrong."""

    outlook: Outlook
    reason: str


Verdict: TypeAlias = GoOn | Stop | Spare


def judge(
    stopping: Stopping,
    run: RunRecord,
    *,
    number: int,
    plan: TrialPlan,
    known: Mapping[str, float],
    curve: Sequence[EpochScore],
) -> Verdict:
    """Judge trial `number` of a run after the last epoch of its curve.

    `known` holds the objectives that are known before training. Only a trial of which all are known but
    accuracy is ever stopped, only after a rung, and never the reference. Equal arguments give equal verdicts.
    """
    if number == REFERENCE or not _may_be_stopped(run, known) or not _is_readable(plan, curve):
        return GoOn()
    reading = Reading(plan=plan, epoch=curve[-1].epoch, accuracy=curve[-1].accuracy)
    seen = _readings(run, reading)
    if len(seen) < stopping.fewest:
        return GoOn()
    images = _images(run)
    expected = forecast(seen, reading, images)
    limit = bar(run, known, one_image=1 / images)
    outlook = Outlook(
        epoch=reading.epoch, bar=limit, expected=expected.accuracy, probability=expected.probability_above(limit)
    )
    if outlook.probability >= stopping.delta:
        return GoOn(outlook=outlook)
    costs = {objective.name: known[objective.name] for objective in run.objectives if objective.name != "accuracy"}
    verdict = Spare if is_spared(stopping, run.seed, plan) else Stop
    return verdict(outlook=outlook, reason=_reason(reading, outlook, costs))


def is_rung(epoch: int, epochs: int) -> bool:
    """Tell whether trials are judged after an epoch: 1, 2, 4, 8, … and the last."""
    return epoch == epochs or epoch & (epoch - 1) == 0


def bar(run: RunRecord, known: Mapping[str, float], one_image: float = 0.0) -> float:
    """Return the largest accuracy that is not enough to reach the front with these known objectives.

    It is that of the best trial on the front that is nowhere worse in them, and at least that of the
    reference point; a limit on accuracy itself is enough, so one image less is not.
    """
    costs = [objective for objective in run.objectives if objective.name != "accuracy"]
    rivals = [found.accuracy for _, found in run.feasible() if _is_no_worse(found, known, costs)]
    limits = [limit.bound - one_image for limit in run.constraints if (limit.name, limit.sign) == ("accuracy", ">=")]
    return max([run.reference_point["accuracy"], *rivals, *limits])


def is_spared(stopping: Stopping, seed: int, plan: TrialPlan) -> bool:
    """Tell whether a trial goes on whatever is expected of it; drawn from the run's seed and the plan, once for all."""
    return random.Random(f"spared {seed}/{plan.fingerprint()}").random() < stopping.spared


def _may_be_stopped(run: RunRecord, known: Mapping[str, float]) -> bool:
    names = {objective.name for objective in run.objectives}
    return "accuracy" in names and all(
        name in known and math.isfinite(known[name]) for name in names if name != "accuracy"
    )


def _is_readable(plan: TrialPlan, curve: Sequence[EpochScore]) -> bool:
    """Tell whether a curve ends at a rung, with a number."""
    return bool(curve) and is_rung(curve[-1].epoch, plan.training.epochs) and math.isfinite(curve[-1].accuracy)


def _is_no_worse(found: Finished, known: Mapping[str, float], costs: Sequence[Objective]) -> bool:
    signs = ((cost.name, 1 if cost.maximize else -1) for cost in costs)
    return all(sign * found.value(name) >= sign * known[name] for name, sign in signs)


def _readings(run: RunRecord, reading: Reading) -> tuple[tuple[Reading, float], ...]:
    """Return the readings of finished trials at the same rung, with their final accuracies.

    The last epochs of all are one rung, however many there were before.
    """
    is_last = reading.remaining == 0
    found = []
    for trial, outcome in run.finished():
        epochs = trial.plan.training.epochs
        epoch = epochs if is_last else reading.epoch
        score = next((score for score in outcome.curve if score.epoch == epoch), None)
        if score is not None and (is_last or epoch < epochs) and math.isfinite(score.accuracy):
            found.append((Reading(plan=trial.plan, epoch=epoch, accuracy=score.accuracy), outcome.accuracy))
    return tuple(found)


def _images(run: RunRecord) -> int:
    """Return how many validation images the interval around an accuracy tells of, at least `_FEWEST_IMAGES`."""
    return max(_FEWEST_IMAGES, round(_counted(run.finished()[0][1])))


def _counted(outcome: Finished) -> float:
    half = (outcome.accuracy_interval.high - outcome.accuracy_interval.low) / 2
    share = outcome.accuracy * (1 - outcome.accuracy)
    linear, square = share - 2 * half**2, 0.25 - half**2
    root = (math.sqrt(linear**2 + 4 * square * half**2) - linear) / (2 * square) if square > 0 else math.inf
    return _Z**2 / root if root > 0 else 0.0


def _reason(reading: Reading, outlook: Outlook, costs: Mapping[str, float]) -> str:
    """Return why a trial is stopped, as a sentence for the user; accuracies in percent."""
    amounts = " and ".join(f"{cost:.3g}{_UNITS[name]}" for name, cost in costs.items())
    worth = f"be worth its {amounts}" if costs else "be the best"
    chance = f"{100 * outlook.probability:.0f} %" if outlook.probability >= _LEAST_SHOWN else "less than 1 %"
    return (
        f"after epoch {outlook.epoch} it reads {100 * reading.accuracy:.1f} %; it would have to end above "
        f"{100 * outlook.bar:.1f} % to {worth}, which happens with a probability of {chance}"
    )
