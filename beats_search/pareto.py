"""Pareto: points and objectives in, the front and its hypervolume out. Computed by moocore.

A point is a tuple of values in the order of the objectives, in objective units. The front keeps
the first of equal points. Hypervolume: Zitzler & Thiele 1998; computed as in Fonseca et al. 2006.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Final

import moocore
import numpy as np

from beats_search.records.objective import Objective
from beats_search.records.outcome import Finished, Interval
from beats_search.records.run import REFERENCE, RunRecord, TrialRecord

Point = tuple[float, ...]

_MARGIN: Final = 1.1


def front(points: Sequence[Point], objectives: Sequence[Objective]) -> tuple[int, ...]:
    """Return the indices of the points that no other dominates, in the order given."""
    if not points:
        return ()
    maximise = [objective.maximize for objective in objectives]
    kept = moocore.is_nondominated(np.asarray(points, dtype=float), maximise=maximise, keep_weakly=False)
    return tuple(int(index) for index in np.flatnonzero(kept))


def hypervolume(points: Sequence[Point], reference: Point, objectives: Sequence[Objective]) -> float:
    """Return the volume that the points dominate, bounded by `reference`; 0 without points."""
    if not points:
        return 0.0
    maximise = [objective.maximize for objective in objectives]
    return float(moocore.hypervolume(np.asarray(points, dtype=float), ref=np.asarray(reference), maximise=maximise))


def front_of_run(run: RunRecord) -> tuple[tuple[TrialRecord, Finished], ...]:
    """Return the feasible finished trials that no other dominates, ordered by the last objective."""
    feasible = run.feasible()
    points = [point_of(outcome, run.objectives) for _, outcome in feasible]
    kept = front(points, run.objectives)
    return tuple(feasible[index] for index in sorted(kept, key=lambda index: points[index][-1]))


def worst_corner(objectives: Sequence[Objective], guessing: float, reference: Finished) -> Mapping[str, float]:
    """Return the reference point of a hypervolume by objective: the accuracy of guessing, a tenth above the costs.

    The costs are those of the reference, in objective units.
    """
    return {goal.name: _MARGIN * reference.value(goal.name) for goal in objectives} | {"accuracy": guessing}


def undecided_of_run(run: RunRecord, most: int) -> tuple[TrialRecord, ...]:
    """Return the front and after it the near misses, those that need to gain least first; `most` in all.

    A near miss is a trial that only the noise of its timing may keep off the front: with the low end of
    its latency's interval it keeps all limits, and no trial with the high end of its own dominates it.
    All of the front is returned, however many there are.
    """
    front_ = front_of_run(run)
    on_front = {trial.number for trial, _ in front_}
    slow = [_slowest(outcome) for _, outcome in run.finished()]
    sure = [point_of(outcome, run.objectives) for outcome in slow if _holds(run, outcome)]
    edge = [sure[index] for index in front(sure, run.objectives)]
    misses = [
        (_lag(run, outcome, front_), trial.number, trial)
        for trial, outcome in run.finished()
        if trial.number not in on_front and _may_come_in(run, outcome, edge)
    ]
    nearest = [trial for _, _, trial in sorted(misses, key=lambda miss: miss[:2])]
    return (*(trial for trial, _ in front_), *nearest)[: max(most, len(front_))]


def ties_of_run(run: RunRecord) -> tuple[tuple[int, int], ...]:
    """Return the pairs on the front whose latencies cannot be told apart, the faster one first.

    They were timed side by side, and the intervals of their ratios to the reference overlap; its own
    is exactly 1. Without latency as an objective there are none.
    """
    if all(objective.name != "latency_ms" for objective in run.objectives):
        return ()
    timed = [
        (trial.number, _side_by_side(trial, outcome))
        for trial, outcome in sorted(front_of_run(run), key=lambda pair: pair[1].latency.median_ms)
        if trial.number in run.first_latency or (trial.number == REFERENCE and run.first_latency)
    ]
    return tuple((one, other) for (one, ends), (other, others) in combinations(timed, 2) if others.low <= ends.high)


def hypervolume_of_run(run: RunRecord) -> float:
    """Return the hypervolume of the front of a run, in the product of the objectives' units."""
    points = [point_of(outcome, run.objectives) for _, outcome in front_of_run(run)]
    corner = tuple(run.reference_point[objective.name] for objective in run.objectives)
    return hypervolume(points, corner, run.objectives)


def point_of(outcome: Finished, objectives: Sequence[Objective]) -> Point:
    """Return the values of a finished trial in the order of the objectives."""
    return tuple(outcome.value(objective.name) for objective in objectives)


def _may_come_in(run: RunRecord, outcome: Finished, edge: Sequence[Point]) -> bool:
    fast = _fastest(outcome)
    point = point_of(fast, run.objectives)
    return _holds(run, fast) and not any(_reaches(sure, point, run.objectives) and sure != point for sure in edge)


def _lag(run: RunRecord, outcome: Finished, front_: Sequence[tuple[TrialRecord, Finished]]) -> float:
    """Return how many times its fastest rival's latency a trial has; the rivals are what dominates it."""
    own = point_of(outcome, run.objectives)
    rivals = [rival for _, rival in front_ if _reaches(point_of(rival, run.objectives), own, run.objectives)]
    fastest = min((rival.latency.median_ms for rival in rivals), default=math.inf)
    return outcome.latency.median_ms / fastest


def _reaches(one: Point, other: Point, objectives: Sequence[Objective]) -> bool:
    """Tell whether one point is nowhere worse than another."""
    return all(a >= b if objective.maximize else a <= b for a, b, objective in zip(one, other, objectives, strict=True))


def _holds(run: RunRecord, outcome: Finished) -> bool:
    return all(limit.holds(outcome) for limit in run.constraints)


def _fastest(outcome: Finished) -> Finished:
    return replace(outcome, latency=replace(outcome.latency, median_ms=outcome.latency.interval_ms.low))


def _slowest(outcome: Finished) -> Finished:
    return replace(outcome, latency=replace(outcome.latency, median_ms=outcome.latency.interval_ms.high))


def _side_by_side(trial: TrialRecord, outcome: Finished) -> Interval:
    return Interval(low=1.0, high=1.0) if trial.number == REFERENCE else outcome.latency.ratio_interval
