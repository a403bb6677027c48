"""Tables: a run in, every trial as CSV and the front as rows out."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import Final

from beats_search.pareto import front_of_run
from beats_search.records.outcome import EpochScore, Failed, Finished, Interval, Stopped, TrialOutcome
from beats_search.records.part import Scalar
from beats_search.records.plain import to_plain
from beats_search.records.run import RunRecord, TrialRecord
from beats_search.report.front import reference_of
from beats_search.report.timing import rivals_of_run
from beats_search.report.words import plan_in_words

_COLUMNS: Final = (
    "number",
    "state",
    "stage",
    "reason",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "latency_ms",
    "latency_ms_low",
    "latency_ms_high",
    "executed_as",
    "parameters",
    "macs",
    "size_kb",
    "energy_mj",
    "test_accuracy",
    "updates",
    "skipped",
    "seconds",
)
_EVERYWHERE: Final = frozenset({"accuracy", "latency_ms", "size_kb"})
"""What every table of a front shows, whatever counts."""

_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontRow:
    """A member of the front as a person reads it; `speedup` is latency of the reference / its own.

    `others` are the values that count in the run, by name, and that not every run has a column for.
    `ties` are others whose latencies cannot be told from its own; `again` says what it reached
    when it was trained anew with other seeds, empty where it was not.
    """

    trial: int
    accuracy: float
    accuracy_interval: Interval
    latency_ms: float
    latency_interval_ms: Interval
    speedup: float | None
    size_kb: float
    macs: int
    executed_as: str
    plan: str
    test_accuracy: float | None
    others: tuple[tuple[str, float], ...] = ()
    ties: tuple[int, ...] = ()
    again: str = ""


def front_rows(run: RunRecord) -> tuple[FrontRow, ...]:
    """Return the front, ordered by the last objective; `speedup` is None without a finished reference."""
    rivals = rivals_of_run(run)
    rows = (_front_row(run, trial, outcome) for trial, outcome in front_of_run(run))
    return tuple(replace(row, ties=rivals.get(row.trial, ())) for row in rows)


def trials_csv(run: RunRecord) -> str:
    """Return all trials as CSV, one a row, with a column per knob; unknown values are empty.

    `updates` and `skipped` count optimizer steps and micro-batches that were not taken, over all epochs.
    A text that a spreadsheet would take for a formula is written with an apostrophe before it.
    """
    knobs = sorted({path for trial in run.trials for path in trial.params})
    sheet = io.StringIO()
    writer = csv.DictWriter(sheet, [*_COLUMNS, *(_harmless(path) for path in knobs)])
    writer.writeheader()
    for trial in run.trials:
        cells = {**_cells(run, trial), **trial.params}
        writer.writerow({_harmless(column): _cell(value) for column, value in cells.items()})
    return sheet.getvalue()


def speedup(run: RunRecord, outcome: Finished) -> float | None:
    """Return how many times faster than the reference a trial is; None without a finished reference."""
    reference = reference_of(run)
    return reference[1].latency.median_ms / outcome.latency.median_ms if reference else None


def state_of(outcome: TrialOutcome) -> str:
    """Return the word for how a trial ended: finished, stopped or failed."""
    return type(outcome).__name__.lower()


def _front_row(run: RunRecord, trial: TrialRecord, outcome: Finished) -> FrontRow:
    return FrontRow(
        trial=trial.number,
        accuracy=outcome.accuracy,
        accuracy_interval=outcome.accuracy_interval,
        latency_ms=outcome.latency.median_ms,
        latency_interval_ms=outcome.latency.interval_ms,
        speedup=speedup(run, outcome),
        size_kb=outcome.footprint.size_kb,
        macs=outcome.footprint.macs,
        executed_as=outcome.executed_as,
        plan=plan_in_words(trial.plan),
        test_accuracy=run.test_accuracy.get(trial.number),
        others=_others(run, outcome),
        again=_again(run, trial),
    )


def _others(run: RunRecord, outcome: Finished) -> tuple[tuple[str, float], ...]:
    return tuple((name, outcome.value(name)) for name in run.counting if name not in _EVERYWHERE)


def _again(run: RunRecord, trial: TrialRecord) -> str:
    """Say what a plan reached with other seeds: the mean, and the ends where there are several."""
    shares = run.confirmed[trial.number].accuracy if trial.number in run.confirmed else ()
    if len(shares) <= 1:
        return "".join(f"{share:.4f}" for share in shares)
    return f"{mean(shares):.4f} ({min(shares):.4f}…{max(shares):.4f})"


def _cells(run: RunRecord, trial: TrialRecord) -> Mapping[str, Scalar]:
    own: Mapping[str, Scalar] = {
        "number": trial.number,
        "state": state_of(trial.outcome),
        "seconds": trial.seconds,
        "test_accuracy": run.test_accuracy.get(trial.number),
    }
    match trial.outcome:
        case Finished() as outcome:
            return {**own, **_measured_cells(outcome), **_update_cells(outcome.curve)}
        case Stopped(epoch=epoch, reason=reason, curve=curve):
            return {**own, "stage": f"epoch {epoch}", "reason": reason, **_update_cells(curve)}
        case Failed(stage=stage, reason=reason):
            return {**own, "stage": stage, "reason": reason}


def _measured_cells(outcome: Finished) -> Mapping[str, Scalar]:
    return {
        "accuracy": outcome.accuracy,
        "accuracy_low": outcome.accuracy_interval.low,
        "accuracy_high": outcome.accuracy_interval.high,
        "latency_ms": outcome.latency.median_ms,
        "latency_ms_low": outcome.latency.interval_ms.low,
        "latency_ms_high": outcome.latency.interval_ms.high,
        "executed_as": outcome.executed_as,
        "parameters": outcome.footprint.parameters,
        "macs": outcome.footprint.macs,
        "size_kb": outcome.footprint.size_kb,
        "energy_mj": outcome.energy_mj,
    }


def _update_cells(curve: Sequence[EpochScore]) -> Mapping[str, Scalar]:
    if not any(score.micro_batches for score in curve):  # scores of before these were counted
        return {}
    return {"updates": sum(score.updates for score in curve), "skipped": sum(score.skipped for score in curve)}


def _cell(value: Scalar) -> object:
    return _harmless(value) if isinstance(value, str) else to_plain(value)


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text
