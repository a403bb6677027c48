"""The command line: every command on a real, tiny run."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from cli_calls import SPACE, call, write
from toys import stripes
from typer.testing import Result

from beats_search.search.reading import read_run

pytestmark = pytest.mark.usefixtures("toys_importable")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """Return the folder of a run that was started on the command line, and what that printed."""
    folder = tmp_path_factory.mktemp("run")
    result = call("run", write(folder), "--out", folder / "out")
    return folder / "out", result


def _front(folder: Path) -> Mapping[str, Any]:
    document: Mapping[str, Any] = json.loads((folder / "front.json").read_text(encoding="utf-8"))
    return document


@pytest.mark.slow
def test_run_leaves_what_it_promises(finished: tuple[Path, Result]) -> None:
    """A run ends with 0, and its folder holds the page, the front, the table, the space and the study."""
    folder, result = finished
    assert result.exit_code == 0, result.output
    promised = {"space.yaml", "study.db", "front.json", "trials.csv", "report.html", "environment.json", "models"}
    assert promised <= {path.name for path in folder.iterdir()}
    assert "trial   0" in result.output
    assert str(folder / "report.html") in result.output


@pytest.mark.slow
def test_front_is_measured_on_the_files(finished: tuple[Path, Result]) -> None:
    """Each model of the front, run plainly on the test split, gives exactly the test accuracy of front.json."""
    folder, _ = finished
    test = stripes().test
    front = _front(folder)["front"]
    assert front
    for member in front:
        session = onnxruntime.InferenceSession(folder / member["model"])
        logits = session.run(["logits"], {"input": test.inputs.numpy()})[0]
        assert np.mean(logits.argmax(1) == test.labels.numpy()) == member["test_accuracy"]
        assert (folder / "models" / str(member["trial"]) / "card.json").is_file()


@pytest.mark.slow
def test_hypervolume_is_measured_from_the_majority_and_the_reference(finished: tuple[Path, Result]) -> None:
    """The reference point is the share of the commonest class and 1.1 times the latency of trial 0."""
    front = _front(finished[0])
    labels = stripes().validation.labels.numpy()
    assert front["reference_point"]["accuracy"] == pytest.approx(np.bincount(labels).max() / len(labels))
    (reference,) = front["baselines"]
    assert front["reference_point"]["latency_ms"] == pytest.approx(1.1 * reference["values"]["latency_ms"])


@pytest.mark.slow
def test_a_finished_run_has_nothing_left_to_do(finished: tuple[Path, Result]) -> None:
    """The same command again trains nothing and ends with 0."""
    folder, _ = finished
    before = (folder / "trials.csv").read_text(encoding="utf-8")
    result = call("run", folder.parent / "space.yaml", "--out", folder)
    assert result.exit_code == 0, result.output
    assert (folder / "trials.csv").read_text(encoding="utf-8") == before
    assert "trial   0" not in result.output


@pytest.mark.slow
def test_a_space_that_nothing_fits_any_more_is_refused(finished: tuple[Path, Result]) -> None:
    """A run none of whose trials the edited space allows stays as it is, and the user is told what to do."""
    folder, _ = finished
    before = (folder / "study.db").read_bytes()
    result = call("run", folder.parent / "space.yaml", "--out", folder, "--set", "training.epochs=1")
    assert result.exit_code == 2
    assert "no trial of its run fits" in result.output
    assert "--fresh" in result.output
    assert (folder / "study.db").read_bytes() == before


@pytest.mark.slow
def test_an_edited_space_keeps_what_fits(finished: tuple[Path, Result], tmp_path: Path) -> None:
    """With a knob narrowed, the trials within it stay, numbers and models included, and others run beside them."""
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    plans = {row.number: row.plan for row in read_run(folder / "study.db").trials}
    narrow = SPACE.replace("{choice: [32, 8]}", "8").replace("trials: 4", "trials: 3")
    result = call("run", write(tmp_path, narrow), "--out", folder)
    assert result.exit_code == 0, result.output
    assert "the space was edited: 1 of 3 trials still fit it and are kept" in result.output
    after = read_run(folder / "study.db").trials
    kept = [row for row in after if row.number and row.number in plans]
    assert len(kept) == 1
    assert all(row.plan == plans[row.number] for row in kept)
    assert {row.number for row in after} - plans.keys() == {len(plans)}
    assert (folder / "study.previous.db").is_file()


@pytest.mark.slow
def test_show_prints_the_front(finished: tuple[Path, Result]) -> None:
    """`show` prints every member of the front, `show --json` the very document."""
    folder, _ = finished
    table, document = call("show", folder), call("show", folder, "--json")
    assert table.exit_code == document.exit_code == 0
    assert json.loads(document.output) == _front(folder)
    for member in _front(folder)["front"]:
        assert f"{member['test_accuracy']:.4f}" in table.output


@pytest.mark.slow
def test_report_rebuilds_the_page_from_the_study_alone(finished: tuple[Path, Result]) -> None:
    """A page that was deleted comes back; two runs make one page."""
    folder, _ = finished
    (folder / "report.html").unlink()
    assert call("report", folder).exit_code == 0
    assert (folder / "report.html").is_file()
    both = folder.parent / "both.html"
    assert call("report", folder, folder, "--out", both).exit_code == 0
    assert both.read_text(encoding="utf-8").count("tiny") >= 2


@pytest.mark.slow
def test_exported_script_runs_the_model(finished: tuple[Path, Result], tmp_path: Path) -> None:
    """`export` leaves a model, a card and a script that names classes, with nothing but onnxruntime."""
    folder, _ = finished
    number = _front(folder)["front"][0]["trial"]
    result = call("export", folder, number, "--to", tmp_path / "shipped")
    assert result.exit_code == 0, result.output
    images = stripes().test.inputs[:5].numpy()
    np.save(tmp_path / "images.npy", images)
    ran = subprocess.run(
        [sys.executable, "run.py", str(tmp_path / "images.npy")],
        cwd=tmp_path / "shipped",
        capture_output=True,
        text=True,
        check=True,
    )
    session = onnxruntime.InferenceSession(tmp_path / "shipped" / "model.onnx")
    expected = [f"line {row.argmax()}" for row in session.run(None, {"input": images})[0]]
    assert ran.stdout.strip() == str(expected)


@pytest.mark.slow
def test_export_of_a_trial_that_is_not_there_says_which_are(finished: tuple[Path, Result], tmp_path: Path) -> None:
    """An unknown trial is answered with the finished ones."""
    result = call("export", finished[0], 99, "--to", tmp_path)
    assert result.exit_code == 2
    assert "trial 99 has not finished; these have: 0, 1" in result.output


@pytest.mark.slow
def test_replay_compares_samplers_or_says_why_not(finished: tuple[Path, Result]) -> None:
    """A run of three trials is too small a table, and an unknown sampler is named."""
    few, unknown = call("replay", finished[0], "--sampler", "tpe"), call("replay", finished[0], "--sampler", "tpee")
    assert few.exit_code == unknown.exit_code == 2
    assert "at least 4 finished trials" in few.output
    assert "got tpee" in unknown.output


@pytest.mark.slow
def test_check_measures_without_training(tmp_path: Path) -> None:
    """`check` tells plans, knobs, latencies and an estimate, and writes nothing."""
    result = call("check", write(tmp_path))
    assert result.exit_code == 0, result.output
    assert "4 plans, 2 knobs" in result.output
    assert "model.width" in result.output
    assert "ref" in result.output
    assert "a trial" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["space.yaml"]


@pytest.mark.slow
def test_fresh_deletes_only_what_a_run_wrote(finished: tuple[Path, Result]) -> None:
    """A run's folder with a stranger's file in it is refused as a whole."""
    folder, _ = finished
    (folder / "notes.txt").write_text("mine")
    try:
        result = call("run", folder.parent / "space.yaml", "--out", folder, "--fresh")
        assert result.exit_code == 2
        assert "notes.txt" in result.output
        assert (folder / "study.db").is_file()
    finally:
        (folder / "notes.txt").unlink()
    started = call("run", folder.parent / "space.yaml", "--out", folder, "--fresh", "--trials", 1)
    assert started.exit_code == 0, started.output
    assert "trial   0" in started.output


@pytest.mark.slow
def test_export_overwrites_nothing(finished: tuple[Path, Result], tmp_path: Path) -> None:
    """A file of the same name in the target folder is refused, and kept."""
    (tmp_path / "run.py").write_text("print('mine')")
    result = call("export", finished[0], 0, "--to", tmp_path)
    assert result.exit_code == 2
    assert "run.py" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["run.py"]


def test_every_command_has_help() -> None:
    """`--help` lists every command, and each has a sentence of its own."""
    listed = call("--help").output
    for command in ("run", "check", "show", "report", "export", "replay", "parts", "schema"):
        assert command in listed
        assert call(command, "--help").exit_code == 0


def test_help_answers_at_once() -> None:
    """The fastest of three calls of `--help` takes less than 0.4 seconds."""
    script = Path(sys.executable).with_name("beats-search")
    times = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([script, "--help"], capture_output=True, check=True, env={**os.environ, "COLUMNS": "100"})
        times.append(time.perf_counter() - began)
    assert min(times) < 0.4


def test_parts_lists_every_part() -> None:
    """Every part of every shelf is listed."""
    from beats_search import plugins

    output = call("parts").output
    for shelf in plugins.SHELVES:
        for name in plugins.names(shelf):
            assert name in output


def test_schema_is_json() -> None:
    """`schema` prints a JSON Schema."""
    assert "$schema" in json.loads(call("schema").output)
