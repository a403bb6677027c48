"""Savings: a run in, what it saved by stopping trials early and how often that was wrong out."""

import math
from dataclasses import dataclass
from typing import Final, final

from beats_search.pareto import front, front_of_run, point_of
from beats_search.records.outcome import Interval, Stopped
from beats_search.records.plan import TrialPlan
from beats_search.records.run import RunRecord

_Z: Final = 1.959963984540054  # 97.5 % quantile of the normal distribution


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Savings:
    """What stopping saved, and what became of the trials that were spared.

    `epochs` counts those of recovery too. `seconds` is an estimate: what was left out, at the pace of the
    trial's own epochs. A spared trial that reached the front when it ended would have been a false stop;
    `on_front` counts those that are still there.
    """

    stopped: int
    epochs: int
    seconds: float
    spared: int
    false_stops: int
    on_front: int

    @property
    def rate(self) -> float:
        """The share of stops that are false, NaN when none was spared."""
        return self.false_stops / self.spared if self.spared else math.nan

    @property
    def interval(self) -> Interval:
        """The 95 % interval of that share (Wilson 1927)."""
        if not self.spared:
            return Interval(low=0.0, high=1.0)
        middle = self.rate + _Z**2 / (2 * self.spared)
        spread = _Z * math.sqrt(self.rate * (1 - self.rate) / self.spared + _Z**2 / (4 * self.spared**2))
        scale = 1 + _Z**2 / self.spared
        return Interval(low=max(0.0, (middle - spread) / scale), high=min(1.0, (middle + spread) / scale))


def savings_of_run(run: RunRecord) -> Savings:
    """Return what a run saved so far."""
    stops = [(trial.plan, trial.outcome) for trial in run.trials if isinstance(trial.outcome, Stopped)]
    spared = frozenset(trial.number for trial in run.trials if trial.spared_at is not None)
    return Savings(
        stopped=len(stops),
        epochs=sum(_left_out(plan, outcome) for plan, outcome in stops),
        seconds=math.fsum(_left_out(plan, outcome) * _pace(outcome) for plan, outcome in stops),
        spared=len(spared),
        false_stops=_came_in(run.as_searched(), spared),
        on_front=len(spared & {trial.number for trial, _ in front_of_run(run)}),
    )


def _left_out(plan: TrialPlan, outcome: Stopped) -> int:
    """Return how many of a plan's epochs did not run."""
    recovery = [value for part in plan.compression for name, value in part.settings if name == "recovery_epochs"]
    return plan.training.epochs - outcome.epoch + sum(epochs for epochs in recovery if isinstance(epochs, int))


def _pace(outcome: Stopped) -> float:
    """Return the mean seconds of an epoch, 0 without any."""
    return math.fsum(score.seconds for score in outcome.curve) / max(1, len(outcome.curve))


def _came_in(run: RunRecord, spared: frozenset[int]) -> int:
    """Return how many of these trials were on the front when they ended."""
    ended = sorted(run.feasible(), key=lambda pair: (pair[0].began_s + pair[0].seconds, pair[0].number))
    points = [point_of(outcome, run.objectives) for _, outcome in ended]
    places = [place for place, (trial, _) in enumerate(ended) if trial.number in spared]
    return sum(place in front(points[: place + 1], run.objectives) for place in places)
