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
    by number; the latency in their outcomes is the one of that second timing. The reference is among
    them, and all latencies in milliseconds are on the scale of its second timing.
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

    @property
    def counting(self) -> tuple[str, ...]:
        """The names of all values that are an objective or limited, each once."""
        objectives, limits = (each.name for each in self.objectives), (each.name for each in self.constraints)
        return tuple(dict.fromkeys([*objectives, *limits]))

    def timed_once_more(self, latencies: Mapping[int, Latency]) -> "RunRecord":
        """Return the run with final latencies by number, and all others on the scale of the reference's."""
        first = {trial.number: outcome.latency for trial, outcome in self.finished() if trial.number in latencies}
        return replace(self._on_scale_of(latencies), first_latency=first)

    def as_searched(self) -> "RunRecord":
        """Return the run with the latencies that the search knew, but for the last digit."""
        return replace(self._on_scale_of(self.first_latency), first_latency={})

    def feasible(self) -> tuple[tuple[TrialRecord, Finished], ...]:
        """Return the finished trials that keep all limits."""
        return tuple(pair for pair in self.finished() if all(limit.holds(pair[1]) for limit in self.constraints))

    def finished(self) -> tuple[tuple[TrialRecord, Finished], ...]:
        """Return the finished trials, each with its outcome, in the order of their numbers."""
        return tuple((trial, trial.outcome) for trial in self.trials if isinstance(trial.outcome, Finished))

    def _on_scale_of(self, latencies: Mapping[int, Latency]) -> "RunRecord":
        """Return the run with other latencies by number; where the reference's is among them, it scales the rest."""
        known = {trial.number: outcome.latency for trial, outcome in self.finished()}
        if not latencies:
            return self
        both = REFERENCE in known and REFERENCE in latencies
        factor = latencies[REFERENCE].median_ms / known[REFERENCE].median_ms if both else 1.0
        corner = self.reference_point
        return replace(
            self,
            trials=tuple(with_latency(_slower(trial, factor), latencies.get(trial.number)) for trial in self.trials),
            reference_point={name: corner[name] * (factor if name == "latency_ms" else 1.0) for name in corner},
        )


def with_latency(trial: TrialRecord, latency: Latency | None) -> TrialRecord:
    """Return a trial with another latency; as it is without one, or when it has not finished."""
    if latency is None or not isinstance(trial.outcome, Finished):
        return trial
    return replace(trial, outcome=replace(trial.outcome, latency=latency))


def _slower(trial: TrialRecord, factor: float) -> TrialRecord:
    """Return a trial as if its milliseconds had been so many times as long."""
    known = {name: value * (factor if name == "latency_ms" else 1.0) for name, value in trial.known.items()}
    slower = trial.outcome.latency.times(factor) if isinstance(trial.outcome, Finished) else None
    return replace(with_latency(trial, slower), known=known)
