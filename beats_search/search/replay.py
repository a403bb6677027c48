"""Replay: a finished run and some samplers in, how fast each would have found the run's front out.

Nothing is trained. The run's finished trials are a table; what a sampler proposes is answered by the
nearest trial of the table that it has not had yet, and that trial's own values are what it learns from.
A sampler that asks what is known before training is told latency, size and MACs of the trial in the table
whose model, compression and runtime are most like the plan's.

What this can tell: which sampler orders the plans of this run better, in seconds and with a spread
over seeds. What it cannot: what a sampler would have found outside the table. The sampler that made
the run chose the table, and near the end of a replay every sampler has to take what is left, so
differences late in the replay, or small ones, mean nothing. A run of random_search or sobol makes
the fairest table. Repeats, stopped and failed trials are left out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Final, TypeAlias

import optuna
from optuna import Study
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from beats_search import plugins
from beats_search.pareto import hypervolume, point_of
from beats_search.records.errors import CommandError
from beats_search.records.idle import effective
from beats_search.records.outcome import Finished
from beats_search.records.part import Part, Setting
from beats_search.records.plan import TrialPlan
from beats_search.records.run import REFERENCE, RunRecord, TrialRecord
from beats_search.search.domain import Domain, Params, difference, distribution
from beats_search.search.foresight import Foresight
from beats_search.search.proposal import Asked, SamplerPart
from beats_search.search.storage import silence

FORESEEABLE: Final = frozenset({"latency_ms", "size_kb", "macs"})
"""What may be known before training."""

FEWEST: Final = 4
"""So many finished trials make quarters that mean something at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRow:
    """One sampler on one run: medians over seeds.

    `share_at_25` … `share_at_75` are shares (0…1) of the run's hypervolume after that percentage of
    its trials; `trials_to_90` and `trials_to_95` count trials until that share, infinite when the
    sampler had no more proposals before.
    """

    sampler: str
    seeds: int
    trials: int
    share_at_25: float
    share_at_50: float
    share_at_75: float
    trials_to_90: float
    trials_to_95: float


def replay(run: RunRecord, domain: Domain, samplers: Sequence[Part], seeds: int = 5) -> tuple[ReplayRow, ...]:
    """Return a row for each sampler, over the seeds 0…seeds − 1.

    Raises CommandError when the run has too few finished trials, or none within its limits that is
    better than the reference point.
    """
    silence()
    if len(_table(run)) < FEWEST:
        rule = f"a replay needs at least {FEWEST} finished trials beside the reference"
        raise CommandError(f"{rule}, {run.name} has {len(_table(run))}")
    if _volume(run, run.finished()) <= 0:
        raise CommandError(f"{run.name} has no trial that is better than its reference point: nothing to compare")
    return tuple(_row(run, domain, sampler, seeds) for sampler in samplers)


_Answer: TypeAlias = tuple[TrialRecord, Finished]


def distance(domain: Domain, one: Params, other: Params) -> float:
    """Return how far two plans are apart: the sum over knobs of 0…1, and 1 for a knob that only one of them has."""
    apart = len(one.keys() ^ other.keys())
    return apart + sum(difference(domain[path], one[path], other[path]) for path in one.keys() & other.keys())


def _table(run: RunRecord) -> tuple[_Answer, ...]:
    return tuple(answer for answer in run.finished() if answer[0].number != REFERENCE)


def _row(run: RunRecord, domain: Domain, sampler: Part, seeds: int) -> ReplayRow:
    part: SamplerPart = plugins.make("samplers", sampler)
    courses = [_course(run, domain, part, seed) for seed in range(seeds)]
    trials = len(courses[0]) - 1

    def share(part_of_trials: float) -> float:
        return median(course[math.ceil(part_of_trials * trials)] for course in courses)

    def until(target: float) -> float:
        return median(
            next((n for n, reached in enumerate(course) if reached >= target), math.inf) for course in courses
        )

    return ReplayRow(
        sampler=sampler.name,
        seeds=seeds,
        trials=trials,
        share_at_25=share(0.25),
        share_at_50=share(0.50),
        share_at_75=share(0.75),
        trials_to_90=until(0.90),
        trials_to_95=until(0.95),
    )


def _course(run: RunRecord, domain: Domain, part: SamplerPart, seed: int) -> list[float]:
    """Return the share of the run's hypervolume after 0, 1, 2, … trials; all know the reference from the start."""
    seen = [answer for answer in run.finished() if answer[0].number == REFERENCE]
    left = list(_table(run))
    whole = _volume(run, run.finished())
    directions = [objective.direction for objective in run.objectives]
    study = optuna.create_study(directions=directions, sampler=RandomSampler())
    foreseeing = replace(domain, foresight=_foresight(run))
    course = [_volume(run, seen) / whole]
    for number in range(len(left)):
        sampler = part.make(seed, number, foreseeing)
        if sampler is not None:
            asked = _asked(study, domain, sampler)
            nearest = min(left, key=lambda answer: distance(domain, asked.params, answer[0].params))
            left.remove(nearest)
            seen.append(nearest)
            study.add_trial(_learned(run, domain, nearest, asked))
        course.append(_volume(run, seen) / whole)
    return course


def _foresight(run: RunRecord) -> Foresight:
    """Return what the table says of plans before training; asking and training cost the same for all."""
    table = _table(run)
    counting = [goal.name for goal in run.objectives] + [limit.name for limit in run.constraints]
    names = [name for name in dict.fromkeys(counting) if name in FORESEEABLE]

    def known(plan: TrialPlan) -> Mapping[str, float]:
        structure = _structure(plan)
        _, outcome = min(table, key=lambda answer: _unlike(structure, _structure(answer[0].plan)))
        return {name: outcome.value(name) for name in names}

    return Foresight(
        objectives=run.objectives,
        constraints=run.constraints,
        reference_point=run.reference_point,
        known=known,
        cost=lambda _: 1.0,
    )


def _structure(plan: TrialPlan) -> Mapping[str, Setting]:
    """Return the settings by place of all that decides latency and size."""
    parts = (plan.model, *map(effective, plan.compression), plan.runtime)
    settings = {f"{place} {name}": value for place, part in enumerate(parts) for name, value in part.settings}
    return settings | {f"{place} name": part.name for place, part in enumerate(parts)}


def _unlike(one: Mapping[str, Setting], other: Mapping[str, Setting]) -> float:
    """Return how many settings differ; of two numbers, how far they are apart as a share of their sum."""
    return len(one.keys() ^ other.keys()) + sum(_apart(one[name], other[name]) for name in one.keys() & other.keys())


def _apart(one: Setting, other: Setting) -> float:
    if isinstance(one, int | float) and isinstance(other, int | float):
        whole = abs(one) + abs(other)
        return abs(one - other) / whole if whole else 0.0
    return float(one != other)


def _asked(study: Study, domain: Domain, sampler: BaseSampler) -> FrozenTrial:
    """Return a proposal, closed as failed, so that no sampler learns from it."""
    study.sampler = sampler
    trial = study.ask()
    domain.draw(Asked(trial))
    return study.tell(trial, state=TrialState.FAIL)


def _learned(run: RunRecord, domain: Domain, answer: _Answer, asked: FrozenTrial) -> FrozenTrial:
    """Return a trial of the table as an answer to a proposal, with what its sampler noted on it (its generation)."""
    trial, outcome = answer
    return create_trial(
        params=dict(trial.params),
        distributions={path: distribution(domain[path]) for path in trial.params},
        values=list(point_of(outcome, run.objectives)),
        constraints={str(limit): limit.violation(outcome) for limit in run.constraints},
        system_attrs=asked.system_attrs,
    )


def _volume(run: RunRecord, answers: Sequence[_Answer]) -> float:
    feasible = [outcome for _, outcome in answers if all(limit.holds(outcome) for limit in run.constraints)]
    corner = tuple(run.reference_point[objective.name] for objective in run.objectives)
    return hypervolume([point_of(outcome, run.objectives) for outcome in feasible], corner, run.objectives)
