"""front.json, trials.csv, the rows of the front, and the cards beside models."""

import csv
import io
import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_runs import REFERENCE_MS, finished, in_regions, plan, realistic_run, record, run_of

from beats_search.pareto import front_of_run, hypervolume_of_run
from beats_search.records.outcome import Failed, Finished, Stopped
from beats_search.records.plain import from_plain
from beats_search.records.plan import TrialPlan
from beats_search.report.cards import card
from beats_search.report.front import front_document
from beats_search.report.tables import front_rows, trials_csv

FIELDS = {
    "trial",
    "values",
    "intervals",
    "test_accuracy",
    "confirmed",
    "plan",
    "executed_as",
    "model",
    "sha256",
}


def documented(run_document: object) -> dict[str, Any]:
    """Return a document as it comes back from a file."""
    read: dict[str, Any] = json.loads(json.dumps(run_document, allow_nan=False))
    return read


def test_front_json_holds_the_front_of_the_run() -> None:
    """The document lists the trials of the front in their order, and the run's hypervolume and objectives."""
    run = realistic_run()
    document = front_document(run)
    front = documented(document)["front"]
    assert [member["trial"] for member in front] == [trial.number for trial, _ in front_of_run(run)]
    assert document["hypervolume"] == hypervolume_of_run(run)
    assert document["objectives"] == {"accuracy": "maximize", "latency_ms": "minimize"}
    assert document["schema"] == 1


def test_every_member_of_front_json_has_all_fields() -> None:
    """A member has its values, intervals, plan and model; the reference has its name besides."""
    document = documented(front_document(realistic_run()))
    front = document["front"]
    (baseline,) = document["baselines"]
    assert all(set(member) == FIELDS for member in front)
    assert set(baseline) == FIELDS | {"name"}
    assert (baseline["name"], baseline["trial"], baseline["model"]) == ("reference", 0, "models/0/model.onnx")
    assert set(baseline["values"]) == {"accuracy", "latency_ms", "size_kb", "macs"}


def test_a_plan_of_front_json_reads_back() -> None:
    """The plan in the document is the plan of the trial."""
    drawn = plan(width=16, ratio=0.25, bits=8)
    document = documented(front_document(run_of(record(1, finished(), drawn))))
    (member,) = document["front"]
    assert from_plain(TrialPlan, member["plan"]) == drawn


def test_what_is_not_finite_is_null_in_front_json() -> None:
    """A NaN in the reference point makes it and the hypervolume null, and the document stays valid JSON."""
    run = replace(run_of(record(1, finished())), reference_point={"accuracy": 0.1, "latency_ms": math.nan})
    document = documented(front_document(run))
    assert document["reference_point"] == {"accuracy": 0.1, "latency_ms": None}
    assert document["hypervolume"] is None
    assert document["baselines"] == []


def test_test_accuracy_is_null_where_it_is_not_known() -> None:
    """A member of the front that was not looked at on the test split has null there."""
    run = replace(run_of(record(0, finished(0.9, 0.1)), record(1, finished(0.95, 0.2))), test_accuracy={1: 0.94})
    assert [row.test_accuracy for row in front_rows(run)] == [None, 0.94]


def test_speedups_are_ratios_to_the_reference() -> None:
    """A model of half the reference's latency is twice as fast; without a reference there is no speed-up."""
    half = record(1, finished(latency_ms=REFERENCE_MS / 2))
    with_reference = run_of(record(0, finished(0.99, REFERENCE_MS)), half)
    assert [row.speedup for row in front_rows(with_reference)] == [pytest.approx(2), pytest.approx(1)]
    assert [row.speedup for row in front_rows(run_of(half))] == [None]


def rows_of(text: str) -> list[dict[str, str]]:
    """Return the rows of a CSV text."""
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_trials_csv_has_a_row_per_trial_and_a_column_per_knob() -> None:
    """Every trial is listed, whatever its end, with the values of its knobs."""
    run = realistic_run()
    rows = rows_of(trials_csv(run))
    assert [int(row["number"]) for row in rows] == [trial.number for trial in run.trials]
    assert {path for trial in run.trials for path in trial.params} < set(rows[0])
    assert rows[1]["model.width"] == str(run.trials[1].params["model.width"])
    assert rows[0]["model.width"] == ""


def test_trials_csv_says_how_each_trial_ended() -> None:
    """A finished trial has values, a stopped one its epoch, a failed one its stage, and both a reason."""
    rows = rows_of(
        trials_csv(
            run_of(
                record(0, finished(accuracy=0.97)),
                record(1, Stopped(epoch=4, reason="no chance", curve=())),
                record(2, Failed(stage="export", reason="no kernel")),
            )
        )
    )
    ends = [(row["state"], row["stage"], row["reason"], row["accuracy"]) for row in rows]
    assert ends == [
        ("finished", "", "", "0.97"),
        ("stopped", "epoch 4", "no chance", ""),
        ("failed", "export", "no kernel", ""),
    ]


def test_trials_csv_counts_updates_and_what_was_skipped() -> None:
    """Both are sums over the epochs of a finished or stopped trial, and empty where they were not counted."""
    told = in_regions(record(1, finished()))
    assert isinstance(told.outcome, Finished)
    curve = tuple(replace(score, skipped=2) for score in told.outcome.curve)
    run = run_of(
        record(0, finished()),
        replace(told, outcome=replace(told.outcome, curve=curve)),
        record(2, Stopped(epoch=3, reason="no chance", curve=curve[:3])),
        record(3, Failed(stage="export", reason="no kernel")),
    )
    cells = [(row["updates"], row["skipped"]) for row in rows_of(trials_csv(run))]
    updates = [score.updates for score in curve]
    assert cells == [("", ""), (str(sum(updates)), "24"), (str(sum(updates[:3])), "6"), ("", "")]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_no_text_in_trials_csv_is_a_formula(text: str) -> None:
    """Whatever a reason or a knob's value says, no cell starts like a formula, and nothing but a quote is added."""
    trial = replace(record(1, Failed(stage="train", reason=text)), params={"model.name": text, "training.lr": -0.5})
    (row,) = rows_of(trials_csv(run_of(trial)))
    for cell in (row["reason"], row["model.name"]):
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
        assert cell in {text, f"'{text}"}
    assert row["training.lr"] == "-0.5"


def test_a_card_tells_how_to_use_the_model() -> None:
    """A card holds the input, the output, the classes, the plan and the sums that the file can be checked with."""
    run = replace(realistic_run(), test_accuracy={0: 0.97})
    trial, outcome = run.finished()[0]
    written = documented(card(run, trial, outcome))
    assert written["input"] == {
        "name": "input",
        "type": "float32",
        "shape": ["batch", 1, 8, 8],
        "layout": "NCHW",
        "range": [0.0, 1.0],
    }
    assert written["output"] == {"name": "logits", "type": "float32", "shape": ["batch", 10]}
    assert written["classes"] == list("0123456789")
    assert from_plain(TrialPlan, written["plan"]) == trial.plan
    assert written["file"] == {"name": "model.onnx", "sha256": outcome.sha256, "size_kb": 310.0}
    assert written["environment"] == dict(run.environment)


def test_a_card_gives_accuracy_and_latency_with_intervals() -> None:
    """Accuracy is given on both splits, latency with its interval, speed-up and the runtime's settings."""
    run = replace(run_of(record(0, finished(0.98, 0.4))), test_accuracy={0: 0.97})
    trial, outcome = run.finished()[0]
    written = card(run, trial, outcome)
    interval = outcome.accuracy_interval
    assert written["accuracy"] == {
        "validation": 0.98,
        "validation_interval": [interval.low, interval.high],
        "test": 0.97,
    }
    assert written["latency"] == {
        "median_ms": 0.4,
        "interval_ms": [0.97 * 0.4, 1.04 * 0.4],
        "speedup_over_reference": 1.0,
        "settled": True,
        "runtime": {"name": "onnxruntime", "batch_size": 1, "threads": 1},
    }


def test_a_card_of_a_table_claims_no_image_layout() -> None:
    """Where an input is no image, the card says nothing of channels or of a range."""
    run = replace(run_of(record(0, finished())), input_shape=(12,))
    trial, outcome = run.finished()[0]
    assert isinstance(outcome, Finished)
    assert card(run, trial, outcome)["input"] == {"name": "input", "type": "float32", "shape": ["batch", 12]}
