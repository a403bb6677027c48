"""The command line: every command on a real, tiny run; every way to go wrong with its exit code."""

import errno
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from toys import stripes
from typer.testing import CliRunner, Result

from beats_search.cli.commands import app
from beats_search.measuring.footprint import measure_footprint
from beats_search.search import ledger
from beats_search.trial import run as trial_run

TESTS = Path(__file__).parent
SPACE = """\
name: tiny
dataset: {name: "toys:stripes"}
model: {name: "toys:net", width: {choice: [8, 16]}}
training:
  epochs: 2
  batch_size: 16
  lr: 0.01
compression:
  - {name: quantization, bits: {choice: [32, 8]}}
search: {trials: 4, sampler: grid}
"""

pytestmark = pytest.mark.usefixtures("_toys_importable")


@pytest.fixture(autouse=True)
def _toys_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let spaces in temporary folders import the toys of the tests."""
    monkeypatch.syspath_prepend(str(TESTS))
    monkeypatch.setenv("PYTHONPATH", str(TESTS))


def _call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def _write(folder: Path, text: str = SPACE) -> Path:
    path = folder / "space.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """Return the folder of a run that was started on the command line, and what that printed."""
    folder = tmp_path_factory.mktemp("run")
    result = _call("run", _write(folder), "--out", folder / "out")
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
    result = _call("run", folder.parent / "space.yaml", "--out", folder)
    assert result.exit_code == 0, result.output
    assert (folder / "trials.csv").read_text(encoding="utf-8") == before
    assert "trial   0" not in result.output


@pytest.mark.slow
def test_an_edited_space_does_not_mix_with_the_run(finished: tuple[Path, Result]) -> None:
    """A folder that holds another space's run is refused, with what to do."""
    folder, _ = finished
    result = _call("run", folder.parent / "space.yaml", "--out", folder, "--set", "training.epochs=1")
    assert result.exit_code == 2
    assert "another space" in result.output
    assert "--fresh" in result.output


@pytest.mark.slow
def test_show_prints_the_front(finished: tuple[Path, Result]) -> None:
    """`show` prints every member of the front, `show --json` the very document."""
    folder, _ = finished
    table, document = _call("show", folder), _call("show", folder, "--json")
    assert table.exit_code == document.exit_code == 0
    assert json.loads(document.output) == _front(folder)
    for member in _front(folder)["front"]:
        assert f"{member['test_accuracy']:.4f}" in table.output


@pytest.mark.slow
def test_report_rebuilds_the_page_from_the_study_alone(finished: tuple[Path, Result]) -> None:
    """A page that was deleted comes back; two runs make one page."""
    folder, _ = finished
    (folder / "report.html").unlink()
    assert _call("report", folder).exit_code == 0
    assert (folder / "report.html").is_file()
    both = folder.parent / "both.html"
    assert _call("report", folder, folder, "--out", both).exit_code == 0
    assert both.read_text(encoding="utf-8").count("tiny") >= 2


@pytest.mark.slow
def test_exported_script_runs_the_model(finished: tuple[Path, Result], tmp_path: Path) -> None:
    """`export` leaves a model, a card and a script that names classes, with nothing but onnxruntime."""
    folder, _ = finished
    number = _front(folder)["front"][0]["trial"]
    result = _call("export", folder, number, "--to", tmp_path / "shipped")
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
    result = _call("export", finished[0], 99, "--to", tmp_path)
    assert result.exit_code == 2
    assert "trial 99 has not finished; these have: 0, 1" in result.output


@pytest.mark.slow
def test_replay_compares_samplers_or_says_why_not(finished: tuple[Path, Result]) -> None:
    """A run of three trials is too small a table, and an unknown sampler is named."""
    few, unknown = _call("replay", finished[0], "--sampler", "tpe"), _call("replay", finished[0], "--sampler", "tpee")
    assert few.exit_code == unknown.exit_code == 2
    assert "at least 4 finished trials" in few.output
    assert "got tpee" in unknown.output


@pytest.mark.slow
def test_check_measures_without_training(tmp_path: Path) -> None:
    """`check` tells plans, knobs, latencies and an estimate, and writes nothing."""
    result = _call("check", _write(tmp_path))
    assert result.exit_code == 0, result.output
    assert "4 plans, 2 knobs" in result.output
    assert "model.width" in result.output
    assert "ref" in result.output
    assert "a trial" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["space.yaml"]


@pytest.mark.slow
def test_failing_trials_are_kept_with_their_reason_and_the_search_goes_on(tmp_path: Path) -> None:
    """One model raises, one leaves, one diverges: each is a failed trial, and the run ends with 0."""
    text = """\
name: mixed
dataset: {name: "toys:stripes"}
model: {choice: [{name: "toys:net"}, {name: "toys:raises"}, {name: "toys:breaks_in_training"}]}
training: {epochs: 1, lr: {choice: [0.01, 1e30]}, optimizer: sgd}
reference: {model: "toys:net", training.lr: 0.01}
search: {trials: 7, sampler: grid}
"""
    result = _call("run", _write(tmp_path, text), "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    rows = (tmp_path / "out" / "trials.csv").read_text(encoding="utf-8")
    assert "my own" in rows
    assert "cannot be trained" in rows
    assert "DivergedError" in rows


@pytest.mark.slow
def test_nothing_finished_ends_with_4(tmp_path: Path) -> None:
    """When the reference cannot be trained, the run says at which stage, and what to do."""
    text = SPACE.replace("toys:net", "toys:breaks_in_training").replace(", width: {choice: [8, 16]}", "")
    result = _call("run", _write(tmp_path, text), "--out", tmp_path / "out")
    assert result.exit_code == 4, result.output
    assert "reference" in result.output
    assert "cannot be trained" in result.output


@pytest.mark.slow
def test_a_full_disk_ends_early_and_the_same_command_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search ends with 130 and one message, keeps what had finished, and goes on when there is space."""
    calls = 0

    def full_from_the_third(*arguments: Any) -> object:  # noqa: ANN401 - whatever the original takes
        nonlocal calls
        calls += 1
        if calls > 2:
            raise OSError(errno.ENOSPC, "no space left")
        return measure_footprint(*arguments)

    monkeypatch.setattr(trial_run, "measure_footprint", full_from_the_third)
    command = ("run", _write(tmp_path), "--out", tmp_path / "out")
    result = _call(*command)
    assert result.exit_code == 130, result.output
    assert "no space left on the disk" in result.output
    assert "Traceback" not in result.output
    monkeypatch.setattr(trial_run, "measure_footprint", measure_footprint)
    assert _call(*command).exit_code == 0
    rows = (tmp_path / "out" / "trials.csv").read_text(encoding="utf-8").splitlines()
    assert sum(",finished," in row for row in rows) == 4


@pytest.mark.slow
def test_a_start_that_finds_no_room_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study that cannot be created leaves nothing in the way of the same command, once there is room."""

    def full(_path: Path) -> object:
        raise OSError(errno.ENOSPC, "no space left")

    command = ("run", _write(tmp_path), "--out", tmp_path / "out", "--trials", 1)
    with monkeypatch.context() as patched:
        patched.setattr(ledger, "create_storage", full)
        result = _call(*command)
    assert result.exit_code == 4, result.output
    assert _call(*command).exit_code == 0


@pytest.mark.slow
def test_a_disk_full_from_the_start_ends_with_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing finished there is nothing to keep, and the exit code says so."""

    def full(*_: object) -> object:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(trial_run, "measure_footprint", full)
    result = _call("run", _write(tmp_path), "--out", tmp_path / "out")
    assert result.exit_code == 4, result.output
    assert "free some space" in result.output


@pytest.mark.slow
def test_ctrl_c_keeps_what_had_finished(tmp_path: Path) -> None:
    """Interrupted, a run ends with 130 and its page; the same command goes on and runs no trial twice."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "beats_search", "run", str(_write(tmp_path)), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("trial   1"):
                break
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[0]
    finally:
        process.kill()
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    assert "interrupted" in rest
    assert (out / "report.html").is_file()
    kept = _front(out)["front"]
    assert kept
    result = _call("run", tmp_path / "space.yaml", "--out", out)
    assert result.exit_code == 0, result.output
    assert "trial   1 " not in result.output
    with closing(sqlite3.connect(out / "study.db")) as study:
        assert study.execute("select count(*) from trials").fetchone()[0] >= 4


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    """`run` and `--fresh` refuse a folder with other files, and delete nothing."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    for extra in ([], ["--fresh"]):
        result = _call("run", _write(tmp_path), "--out", out, *extra)
        assert result.exit_code == 2
        assert "thesis.tex" in result.output
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_fresh_deletes_only_what_a_run_wrote(finished: tuple[Path, Result]) -> None:
    """A run's folder with a stranger's file in it is refused as a whole."""
    folder, _ = finished
    (folder / "notes.txt").write_text("mine")
    try:
        result = _call("run", folder.parent / "space.yaml", "--out", folder, "--fresh")
        assert result.exit_code == 2
        assert "notes.txt" in result.output
        assert (folder / "study.db").is_file()
    finally:
        (folder / "notes.txt").unlink()
    started = _call("run", folder.parent / "space.yaml", "--out", folder, "--fresh", "--trials", 1)
    assert started.exit_code == 0, started.output
    assert "trial   0" in started.output


@pytest.mark.parametrize(
    "command", [["show"], ["report"], ["export", "1", "--to", "x"], ["replay", "--sampler", "tpe"]]
)
def test_commands_on_a_folder_without_a_run_say_so(command: list[str], tmp_path: Path) -> None:
    """Reading a run where there is none is a wrong command, in one line."""
    (tmp_path / "study.txt").write_text("")
    result = _call(command[0], tmp_path, *command[1:])
    assert result.exit_code == 2
    assert "holds no run of beats-search" in result.output


def test_a_damaged_study_is_named(tmp_path: Path) -> None:
    """A study.db that is no database is reported as such."""
    (tmp_path / "study.db").write_bytes(b"no database at all" * 100)
    result = _call("show", tmp_path)
    assert result.exit_code == 2
    assert "study.db" in result.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (SPACE.replace("epochs: 2", "epochs: two"), "space.yaml:5"),
        (SPACE.replace("lr: 0.01", "lrr: 0.01"), "did you mean 'lr'"),
        (SPACE.replace("toys:net", "toys:nett"), "did you mean 'net'"),
        (SPACE.replace("sampler: grid", "sampler: frontierr"), "unknown sampler"),
        ("", "space.yaml:1"),
    ],
)
def test_a_wrong_space_ends_with_2_before_anything_runs(text: str, said: str, tmp_path: Path) -> None:
    """Mistakes are told with file and line, nothing is written, and there is no traceback."""
    result = _call("run", _write(tmp_path, text), "--out", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_a_missing_space_is_named(tmp_path: Path) -> None:
    """A space file that does not exist is a wrong command."""
    result = _call("run", tmp_path / "nothing.yaml")
    assert result.exit_code == 2
    assert "nothing.yaml: there is no such file" in result.output


def test_missing_data_says_where_it_was_looked_for(tmp_path: Path) -> None:
    """Without the files of a data set the run ends before it begins and names the folder."""
    text = SPACE.replace('{name: "toys:stripes"}', "{name: mnist, root: here}")
    result = _call("run", _write(tmp_path, text), "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert str(tmp_path / "here") in result.output
    assert "download: true" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize(
    ("model", "said"), [("cannot_be_exported", "the reference"), ("raises", "my own"), ("wrong_shape", "logits of")]
)
def test_a_reference_that_cannot_be_built_is_told_before_anything_is_written(
    command: str, model: str, said: str, tmp_path: Path
) -> None:
    """A reference without a graph, or one that raises, is a wrong space, in one line."""
    text = SPACE.replace("toys:net", f"toys:{model}").replace(", width: {choice: [8, 16]}", "")
    out = ["--out", str(tmp_path / "out")] if command == "run" else []
    result = _call(command, _write(tmp_path, text), *out)
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_export_overwrites_nothing(finished: tuple[Path, Result], tmp_path: Path) -> None:
    """A file of the same name in the target folder is refused, and kept."""
    (tmp_path / "run.py").write_text("print('mine')")
    result = _call("export", finished[0], 0, "--to", tmp_path)
    assert result.exit_code == 2
    assert "run.py" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["run.py"]


def test_a_library_that_is_missing_ends_with_3(tmp_path: Path) -> None:
    """A part that needs a library that nobody installed names it."""
    (tmp_path / "wants_more.py").write_text("import a_library_that_nobody_has\n")
    result = _call("run", _write(tmp_path, SPACE.replace("toys:net", "wants_more:net")), "--out", tmp_path / "out")
    assert result.exit_code == 3
    assert "a_library_that_nobody_has" in result.output


def test_every_command_has_help() -> None:
    """`--help` lists every command, and each has a sentence of its own."""
    listed = _call("--help").output
    for command in ("run", "check", "show", "report", "export", "replay", "parts", "schema"):
        assert command in listed
        assert _call(command, "--help").exit_code == 0


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

    output = _call("parts").output
    for shelf in plugins.SHELVES:
        for name in plugins.names(shelf):
            assert name in output


def test_schema_is_json() -> None:
    """`schema` prints a JSON Schema."""
    assert "$schema" in json.loads(_call("schema").output)
