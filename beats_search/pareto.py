"""Pareto: points and objectives in, the front and its hypervolume out. Computed by moocore.

A point is a tuple of values in the order of the objectives, in objective units. The front keeps
the first of equal points. Hypervolume: Zitzler & Thiele 1998; computed as in Fonseca et al. 2006.
"""

from collections.abc import Sequence

import moocore
import numpy as np

from beats_search.records.objective import Objective
from beats_search.records.outcome import Finished
from beats_search.records.run import RunRecord, TrialRecord

Point = tuple[float, ...]


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


def hypervolume_of_run(run: RunRecord) -> float:
    """Return the hypervolume of the front of a run, in the product of the objectives' units."""
    points = [point_of(outcome, run.objectives) for _, outcome in front_of_run(run)]
    corner = tuple(run.reference_point[objective.name] for objective in run.objectives)
    return hypervolume(points, corner, run.objectives)


def point_of(outcome: Finished, objectives: Sequence[Objective]) -> Point:
    """Return the values of a finished trial in the order of the objectives."""
    return tuple(outcome.value(objective.name) for objective in objectives)
