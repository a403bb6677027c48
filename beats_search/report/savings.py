"""Savings: a run in, what it did not have to compute out, and how often stopping a trial early was wrong."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Final, final

from beats_search.pareto import front, front_of_run, point_of
from beats_search.records.outcome import TIMING, Finished, Interval, Stopped
from beats_search.records.plan import TrialPlan
from beats_search.records.run import RunRecord
from beats_search.report.measures import duration, plural

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
    ended = [(trial.plan, trial.outcome) for trial in run.trials if isinstance(trial.outcome, Stopped)]
    stops = [(plan, outcome) for plan, outcome in ended if not outcome.foreseen]
    spared = frozenset(trial.number for trial in run.trials if trial.spared_at is not None)
    return Savings(
        stopped=len(stops),
        epochs=sum(_left_out(plan, outcome) for plan, outcome in stops),
        seconds=math.fsum(_left_out(plan, outcome) * _pace(outcome) for plan, outcome in stops),
        spared=len(spared),
        false_stops=_came_in(run.as_searched(), spared),
        on_front=len(spared & {trial.number for trial, _ in front_of_run(run)}),
    )


def savings_in_words(run: RunRecord) -> tuple[str, ...]:
    """Return what a run did not have to compute, each as a sentence; none where it computed everything."""
    told = (_stopped_in_words(savings_of_run(run)), _refused_in_words(run), _reused_in_words(run))
    return tuple(sentence for sentence in told if sentence)


def _stopped_in_words(saved: Savings) -> str:
    if not saved.stopped + saved.spared:
        return ""
    stopped = (
        f"{plural(saved.stopped, 'trial')} ended before {'its' if saved.stopped == 1 else 'their'} last epoch, since "
        f"the front was out of reach: {plural(saved.epochs, 'epoch')}, about {duration(saved.seconds)}, saved."
    )
    if not saved.spared:
        return stopped
    ends = saved.interval
    return (
        f"{stopped} {plural(saved.spared, 'more trial')} would have been stopped and went on to check: "
        f"{saved.false_stops} of {saved.spared} came onto the front all the same "
        f"(95 % interval {ends.low:.0%} to {ends.high:.0%})."
    )


def _refused_in_words(run: RunRecord) -> str:
    why = Counter(trial.outcome.foreseen for trial in run.trials if isinstance(trial.outcome, Stopped))
    reasons = [
        f"{count} {what}"
        for count, what in (
            (why["limit"], "because of a limit of the space"),
            (why["gain"], "because no accuracy could have made the front noticeably better"),
        )
        if count
    ]
    refused = plural(why["limit"] + why["gain"], "plan")
    return f"{refused} never trained, known beforehand to be in vain: {', '.join(reasons)}." if reasons else ""


def _reused_in_words(run: RunRecord) -> str:
    reused: Counter[str] = Counter()
    for trial in run.trials:
        if isinstance(trial.outcome, Finished | Stopped):
            reused.update(trial.outcome.reused_seconds)
    timing = reused.pop(TIMING, 0.0)
    training = math.fsum(reused.values())
    told = [
        f"{duration(seconds)} of {what}"
        for seconds, what in (
            (training, "training was not repeated but taken from trials that began alike"),
            (timing, "timing was not repeated, because files of one structure run equally fast"),
        )
        if seconds
    ]
    return f"{'; '.join(told)}; the search itself took {duration(run.seconds)}." if told else ""


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
