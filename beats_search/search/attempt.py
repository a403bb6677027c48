"""Attempt: a problem and a plan in, its outcome out; what is known before and after each epoch decides how far it goes.

Before training, latency, size and work are known: a plan that breaks a limit on them, or that could hardly
add to the hypervolume even with every answer right, is not trained. After a rung it is judged by its bar.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from beats_search.pareto import hypervolume, point_of
from beats_search.records.outcome import EpochScore, Stopped, TrialOutcome
from beats_search.records.plan import TrialPlan
from beats_search.records.run import REFERENCE, RunRecord
from beats_search.search.stopping import GoOn, Spare, Stop, Stopping, judge

KeepGoing: TypeAlias = Callable[[EpochScore], bool]
RunTrial: TypeAlias = Callable[[int, TrialPlan, KeepGoing], TrialOutcome]
Known: TypeAlias = Callable[[TrialPlan], Mapping[str, float]]
"""Gives what is known of a plan before training: objectives and limited quantities by name, never accuracy."""

LEAST_GAIN: Final = 0.001
"""A plan that could add no more than this share of the hypervolume is not trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempted:
    """How a trial ended, what was known of it before, and the epoch after which it was spared; None if it was not."""

    outcome: TrialOutcome
    known: Mapping[str, float]
    spared_at: int | None = None


def attempt(
    run: Callable[[], RunRecord],
    number: int,
    plan: TrialPlan,
    run_trial: RunTrial,
    *,
    known: Known | None,
    stopping: Stopping | None,
) -> Attempted:
    """Try a plan as far as it may pay. The reference is always tried to the end.

    `run` gives the run as it stands, at each moment anew. Without `known` nothing is foreseen, and without
    that or `stopping` nothing is stopped. A plan of which nothing can be known is tried, to fail in its stage.
    """
    if number == REFERENCE:
        return Attempted(outcome=run_trial(number, plan, lambda _: True), known={})
    foreseen = _foreseen(plan, known)
    refused = _refused(run(), foreseen)
    if refused is not None:
        return Attempted(outcome=refused, known=foreseen)
    judging = _Judging(run=run, number=number, plan=plan, known=foreseen, stopping=stopping)
    outcome = run_trial(number, plan, judging.keep_going)
    if isinstance(outcome, Stopped) and judging.reason:
        outcome = replace(outcome, reason=judging.reason, expected=judging.expected)
    return Attempted(outcome=outcome, known=foreseen, spared_at=judging.spared_at)


def _foreseen(plan: TrialPlan, known: Known | None) -> Mapping[str, float]:
    if known is None:
        return {}
    try:
        return known(plan)
    except Exception:  # noqa: BLE001 - the user's code may raise anything; the trial itself tells it, with its stage
        return {}


def _refused(run: RunRecord, known: Mapping[str, float]) -> Stopped | None:
    """Return how a plan ends that is not trained; None where it may pay."""
    for limit in run.constraints:
        if limit.name in known and not limit.allows(known[limit.name]):
            reason = f"its {limit.name} would be {known[limit.name]:g}, and the space asks for {limit}"
            return Stopped(epoch=0, reason=reason, curve=(), foreseen="limit")
    if _best_gain(run, known) < LEAST_GAIN:
        reason = "with every answer right it would still add less than a thousandth to the front's hypervolume"
        return Stopped(epoch=0, reason=reason, curve=(), foreseen="gain")
    return None


def _best_gain(run: RunRecord, known: Mapping[str, float]) -> float:
    """Return what a plan that answers everything right adds, as a share of the hypervolume; 1 where that is unknown."""
    values = {"accuracy": 1.0, **known}
    if any(objective.name not in values for objective in run.objectives):
        return 1.0
    now = [point_of(outcome, run.objectives) for _, outcome in run.feasible()]
    then = [*now, tuple(values[objective.name] for objective in run.objectives)]
    corner = tuple(run.reference_point[objective.name] for objective in run.objectives)
    volume = hypervolume(now, corner, run.objectives)
    return hypervolume(then, corner, run.objectives) / volume - 1 if volume else 1.0


@dataclass(slots=True, kw_only=True)
class _Judging:
    """A trial under way: its curve, and what was said of it."""

    run: Callable[[], RunRecord]
    number: int
    plan: TrialPlan
    known: Mapping[str, float]
    stopping: Stopping | None
    curve: list[EpochScore] = field(default_factory=list)
    reason: str = ""
    expected: float | None = None
    spared_at: int | None = None

    def keep_going(self, score: EpochScore) -> bool:
        """Judge the trial after an epoch."""
        self.curve.append(score)
        if self.stopping is None:
            return True
        match judge(self.stopping, self.run(), number=self.number, plan=self.plan, known=self.known, curve=self.curve):
            case GoOn():
                return True
            case Spare(outlook=outlook):
                self.spared_at = self.spared_at or outlook.epoch
                return True
            case Stop(reason=reason, outlook=outlook):
                self.reason, self.expected = reason, outlook.expected
                return False
