"""Front: a run in, its Pareto front as the machine-readable document front.json out."""

import math
from collections.abc import Mapping

from beats_search.pareto import front_of_run, hypervolume_of_run
from beats_search.records.outcome import Finished
from beats_search.records.plain import Plain, to_plain
from beats_search.records.run import REFERENCE, RunRecord, TrialRecord

SCHEMA = 1
_VALUES = ("accuracy", "latency_ms", "size_kb", "macs")
_MEASURED = ("accuracy", "latency_ms")


def front_document(run: RunRecord) -> Mapping[str, Plain]:
    """Return front.json: the front with intervals and plans, the reference, the hypervolume.

    Accuracies are 0…1, latencies milliseconds, sizes bytes / 1000; a number that is not finite is null.
    """
    reference = reference_of(run)
    return {
        "schema": SCHEMA,
        "name": run.name,
        "objectives": {objective.name: objective.direction for objective in run.objectives},
        "reference_point": to_plain(run.reference_point),
        "hypervolume": to_plain(known_hypervolume(run)),
        "baselines": [{**_member(run, *reference), "name": "reference"}] if reference else [],
        "front": [_member(run, trial, outcome) for trial, outcome in front_of_run(run)],
    }


def reference_of(run: RunRecord) -> tuple[TrialRecord, Finished] | None:
    """Return trial 0 and its outcome; None when it has not finished."""
    first = next((trial for trial in run.trials if trial.number == REFERENCE), None)
    return (first, first.outcome) if first and isinstance(first.outcome, Finished) else None


def known_hypervolume(run: RunRecord) -> float:
    """Return the hypervolume of a run; NaN while its reference point is not known."""
    corner = [run.reference_point.get(objective.name, math.nan) for objective in run.objectives]
    return hypervolume_of_run(run) if all(map(math.isfinite, corner)) else math.nan


def model_folder(number: int) -> str:
    """Return where the model of a trial and its card are, relative to the folder of its run."""
    return f"models/{number}"


def _member(run: RunRecord, trial: TrialRecord, outcome: Finished) -> dict[str, Plain]:
    measured = _MEASURED if outcome.energy_interval_mj is None else (*_MEASURED, "energy_mj")
    intervals = {name: outcome.interval(name) for name in measured}
    return {
        "trial": trial.number,
        "values": {name: to_plain(outcome.value(name)) for name in _values(outcome)},
        "intervals": {name: [to_plain(ends.low), to_plain(ends.high)] for name, ends in intervals.items()},
        "test_accuracy": to_plain(run.test_accuracy.get(trial.number)),
        "confirmed": to_plain(run.confirmed.get(trial.number)),
        "plan": to_plain(trial.plan),
        "executed_as": outcome.executed_as,
        "model": f"{model_folder(trial.number)}/{outcome.model_file}",
        "sha256": outcome.sha256,
    }


def _values(outcome: Finished) -> tuple[str, ...]:
    return _VALUES if outcome.energy_mj is None else (*_VALUES, "energy_mj")
