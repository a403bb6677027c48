"""A run as a whole: its trials with their outcomes, and what is needed to judge them."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from beats_search.records.column import Column
from beats_search.records.objective import Constraint, Objective
from beats_search.records.outcome import Finished, Latency, TrialOutcome
from beats_search.records.part import Scalar
from beats_search.records.plan import TrialPlan

REFERENCE: Final = 0
"""The number of the trial that all others are compared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One trial as it was told to the study.

    `params` are the values of the knobs by their dotted paths, empty for the reference (trial 0).
    `began_s` and `seconds` count search time: `began_s` is how much of it had been spent before.
    `spared_at` is the first epoch after which it would have been stopped, had it not been let go on to
    find out how often that is wrong. `known` is what was known of it before training, by objective.
    """

    number: int
    params: Mapping[str, Scalar]
    plan: TrialPlan
    outcome: TrialOutcome
    began_s: float
    seconds: float
    spared_at: int | None = None
    known: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """Validation accuracies of a plan that was trained anew from scratch, one per seed."""

    seeds: tuple[int, ...]
    accuracy: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A search as it stands, finished or not.

    `classes` and `input_shape` (without the batch) describe what the models take and tell, `columns`
    the inputs of a table.

    `reference_point` holds the worst corner of the hypervolume by objective name, in objective
    units; `test_accuracy` is known for the front and the reference only, by trial number.
    `duplicates` counts proposals that repeated a known plan and were answered from it.
    `first_latency` is what the search had measured of the trials that were timed once more at its end,
    by number; the latency in their outcomes is the one of that second timing.
    `confirmed` holds what members of the front reached with other seeds, by number.
    """

    name: str
    sampler: str
    seed: int
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    reference_point: Mapping[str, float]
    trials: tuple[TrialRecord, ...]
    duplicates: int
    environment: Mapping[str, str]
    classes: tuple[str, ...]
    input_shape: tuple[int, ...]
    columns: tuple[Column, ...] = ()
    test_accuracy: Mapping[int, float] = field(default_factory=dict)
    first_latency: Mapping[int, Latency] = field(default_factory=dict)
    confirmed: Mapping[int, Confirmation] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Search time spent so far."""
        return max((trial.began_s + trial.seconds for trial in self.trials), default=0.0)

    def as_searched(self) -> "RunRecord":
        """Return the run with the latencies that the search knew."""
        trials = tuple(with_latency(trial, self.first_latency.get(trial.number)) for trial in self.trials)
        return replace(self, trials=trials, first_latency={})

    def feasible(self) -> tuple[tuple[TrialRecord, Finished], ...]:
        """Return the finished trials that keep all limits."""
        return tuple(pair for pair in self.finished() if all(limit.holds(pair[1]) for limit in self.constraints))

    def finished(self) -> tuple[tuple[TrialRecord, Finished], ...]:
        """Return the finished trials, each with its outcome, in the order of their numbers."""
        return tuple((trial, trial.outcome) for trial in self.trials if isinstance(trial.outcome, Finished))


def with_latency(trial: TrialRecord, latency: Latency | None) -> TrialRecord:
    """Return a trial with another latency; as it is without one, or when it has not finished."""
    if latency is None or not isinstance(trial.outcome, Finished):
        return trial
    return replace(trial, outcome=replace(trial.outcome, latency=latency))
