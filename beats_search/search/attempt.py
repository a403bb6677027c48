"""Attempt: a plan and the run as it stands in, how far the plan is tried out.

Before training, latency, size and work are known: a plan that breaks a limit on them, or that could hardly
add to the hypervolume even with every answer right, is not trained. After a rung it is judged by its bar.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias, final

from beats_search.pareto import hypervolume, point_of
from beats_search.records.outcome import EpochScore, Stopped, TrialOutcome
from beats_search.records.plan import TrialPlan
from beats_search.records.run import REFERENCE, RunRecord
from beats_search.search.foresight import BEST
from beats_search.search.stopping import GoOn, Spare, Stop, Stopping, is_rung, judge

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


@final
class Attempt:
    """A plan under way: what is `known` of it before, whether it is `refused`, and how it does after each epoch.

    `run` gives the run as it stands, at each moment anew. Without `known` nothing is foreseen, and without
    that or `stopping` nothing is stopped. A plan of which nothing can be known is tried, to fail in its stage.
    The reference is always tried to the end.
    """

    def __init__(
        self,
        run: Callable[[], RunRecord],
        number: int,
        plan: TrialPlan,
        *,
        known: Known | None,
        stopping: Stopping | None,
    ) -> None:
        """Look at what is known before training."""
        self._run, self._number, self._plan = run, number, plan
        self.known = {} if number == REFERENCE else _foreseen(plan, known)
        self._stopping = None if number == REFERENCE else stopping
        self._curve: list[EpochScore] = []
        self._reason = ""
        self._expected: float | None = None
        self._spared_at: int | None = None
        self.refused = None if number == REFERENCE else _refused(run(), self.known)

    def keep_going(self, score: EpochScore) -> bool:
        """Judge the trial after an epoch."""
        self._curve.append(score)
        if self._stopping is None or not is_rung(score.epoch, self._plan.training.epochs):
            return True  # the run as it stands is not even looked at
        match judge(
            self._stopping, self._run(), number=self._number, plan=self._plan, known=self.known, curve=self._curve
        ):
            case GoOn():
                return True
            case Spare(outlook=outlook):
                self._spared_at = self._spared_at or outlook.epoch
                return True
            case Stop(reason=reason, outlook=outlook):
                self._reason, self._expected = reason, outlook.expected
                return False

    def ended(self, outcome: TrialOutcome) -> Attempted:
        """Return how it ended, with the reason for which it was stopped."""
        if isinstance(outcome, Stopped) and self._reason:
            outcome = replace(outcome, reason=self._reason, expected=self._expected)
        return Attempted(outcome=outcome, known=self.known, spared_at=self._spared_at)


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
    values = {**BEST, **known}
    if any(objective.name not in values for objective in run.objectives):
        return 1.0
    now = [point_of(outcome, run.objectives) for _, outcome in run.feasible()]
    then = [*now, tuple(values[objective.name] for objective in run.objectives)]
    corner = tuple(run.reference_point[objective.name] for objective in run.objectives)
    volume = hypervolume(now, corner, run.objectives)
    return hypervolume(then, corner, run.objectives) / volume - 1 if volume else 1.0
