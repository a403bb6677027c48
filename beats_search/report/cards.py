"""Cards: a finished trial in, the card that lies beside its model out."""

from collections.abc import Mapping

from beats_search.records.column import MISSING_WORDS, Column
from beats_search.records.outcome import Finished, Interval
from beats_search.records.part import Part
from beats_search.records.plain import Plain, to_plain
from beats_search.records.run import RunRecord, TrialRecord
from beats_search.report.tables import speedup
from beats_search.report.words import plan_in_words

SCHEMA = 1
_IMAGE_DIMENSIONS = 3


def card(run: RunRecord, trial: TrialRecord, outcome: Finished) -> Mapping[str, Plain]:
    """Return card.json: what a model takes and tells, how it was made, how good and how fast it is.

    Accuracies are 0…1 with 95 % intervals; latency is one call of the whole batch in milliseconds.
    """
    return {
        "schema": SCHEMA,
        "name": run.name,
        "trial": trial.number,
        "summary": plan_in_words(trial.plan),
        "file": _file(outcome),
        "input": _input(run.input_shape, run.columns, trial.plan.dataset),
        "output": {"name": "logits", "type": "float32", "shape": ["batch", len(run.classes)]},
        "classes": list(run.classes),
        "accuracy": _accuracy(run, trial, outcome),
        "latency": _latency(run, trial, outcome),
        "parameters": outcome.footprint.parameters,
        "macs": outcome.footprint.macs,
        "executed_as": outcome.executed_as,
        "plan": to_plain(trial.plan),
        "environment": to_plain(run.environment),
    }


def _file(outcome: Finished) -> dict[str, Plain]:
    return {"name": outcome.model_file, "sha256": outcome.sha256, "size_kb": to_plain(outcome.footprint.size_kb)}


def _input(shape: tuple[int, ...], columns: tuple[Column, ...], dataset: Part) -> dict[str, Plain]:
    taken: dict[str, Plain] = {"name": "input", "type": "float32", "shape": ["batch", *shape]}
    if len(shape) == _IMAGE_DIMENSIONS:
        return {**taken, "layout": "NCHW", "range": [0.0, 1.0]}
    if not columns:
        return taken
    words = dict(dataset.settings).get("missing_words", MISSING_WORDS)
    return {**taken, "missing_words": to_plain(words), "columns": [_column(column) for column in columns]}


def _column(column: Column) -> dict[str, Plain]:
    """Return what a value of a column is: a number, NaN when it is missing, or a code, -1 when it is unknown."""
    described: dict[str, Plain] = {"name": column.name, "kind": column.kind}
    return {**described, "codes": column.codes} if column.categories else described


def _accuracy(run: RunRecord, trial: TrialRecord, outcome: Finished) -> dict[str, Plain]:
    return {
        "validation": to_plain(outcome.accuracy),
        "validation_interval": _ends(outcome.accuracy_interval),
        "test": to_plain(run.test_accuracy.get(trial.number)),
    }


def _latency(run: RunRecord, trial: TrialRecord, outcome: Finished) -> dict[str, Plain]:
    return {
        "median_ms": to_plain(outcome.latency.median_ms),
        "interval_ms": _ends(outcome.latency.interval_ms),
        "speedup_over_reference": to_plain(speedup(run, outcome)),
        "settled": outcome.latency.settled,
        "runtime": to_plain(trial.plan.runtime),
    }


def _ends(interval: Interval) -> list[Plain]:
    return [to_plain(interval.low), to_plain(interval.high)]
