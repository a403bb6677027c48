"""How commands end when something is wrong: one message, the exit code that belongs to it, nothing lost."""

import errno
import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cli_calls import SPACE, call, write

from beats_search.measuring.footprint import measure_footprint
from beats_search.search import ledger
from beats_search.trial import run as trial_run

pytestmark = pytest.mark.usefixtures("toys_importable")


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
    result = call("run", write(tmp_path, text), "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    rows = (tmp_path / "out" / "trials.csv").read_text(encoding="utf-8")
    assert "my own" in rows
    assert "cannot be trained" in rows
    assert "DivergedError" in rows


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_device_that_is_not_here_is_told_before_anything_runs(command: str, tmp_path: Path) -> None:
    """A space that trains on hardware that this machine lacks is a wrong space."""
    result = call(command, write(tmp_path), "--set", "training.device=cuda:99")
    assert result.exit_code == 2, result.output
    assert "cuda:99" in result.output


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """An output folder that cannot be made is told by its path."""
    (tmp_path / "file").write_text("")
    result = call("run", write(tmp_path), "--out", tmp_path / "file" / "out")
    assert result.exit_code == 2, result.output
    assert str(tmp_path / "file") in result.output


@pytest.mark.slow
def test_a_reader_that_leaves_does_not_end_the_search(tmp_path: Path) -> None:
    """Piped into a reader that stops reading, a run goes on to its end."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "beats_search", "run", str(write(tmp_path)), "--out", str(out), "--trials", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    with process:
        assert process.wait(timeout=120) == 0
    rows = (out / "trials.csv").read_text(encoding="utf-8").splitlines()
    assert sum(",finished," in row for row in rows) == 2


@pytest.mark.slow
def test_nothing_finished_ends_with_4(tmp_path: Path) -> None:
    """When the reference cannot be trained, the run says at which stage, and what to do."""
    text = SPACE.replace("toys:net", "toys:breaks_in_training").replace(", width: {choice: [8, 16]}", "")
    result = call("run", write(tmp_path, text), "--out", tmp_path / "out")
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
    command = ("run", write(tmp_path), "--out", tmp_path / "out")
    result = call(*command)
    assert result.exit_code == 130, result.output
    assert "no space left on the disk" in result.output
    assert "Traceback" not in result.output
    monkeypatch.setattr(trial_run, "measure_footprint", measure_footprint)
    assert call(*command).exit_code == 0
    rows = (tmp_path / "out" / "trials.csv").read_text(encoding="utf-8").splitlines()
    assert sum(",finished," in row for row in rows) == 4


@pytest.mark.slow
def test_a_start_that_finds_no_room_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study that cannot be created leaves nothing in the way of the same command, once there is room."""

    def full(_path: Path) -> object:
        raise OSError(errno.ENOSPC, "no space left")

    command = ("run", write(tmp_path), "--out", tmp_path / "out", "--trials", 1)
    with monkeypatch.context() as patched:
        patched.setattr(ledger, "create_storage", full)
        result = call(*command)
    assert result.exit_code == 4, result.output
    assert call(*command).exit_code == 0


@pytest.mark.slow
def test_a_disk_full_from_the_start_ends_with_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing finished there is nothing to keep, and the exit code says so."""

    def full(*_: object) -> object:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(trial_run, "measure_footprint", full)
    result = call("run", write(tmp_path), "--out", tmp_path / "out")
    assert result.exit_code == 4, result.output
    assert "free some space" in result.output


@pytest.mark.slow
def test_ctrl_c_keeps_what_had_finished(tmp_path: Path) -> None:
    """Interrupted, a run ends with 130 and its page; the same command goes on and runs no trial twice."""
    out = tmp_path / "out"
    space = write(tmp_path, SPACE.replace("epochs: 2", "epochs: 30"))  # long enough to be interrupted
    command = [sys.executable, "-m", "beats_search", "run", str(space), "--out", str(out)]
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore Ctrl-C
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path)
    signal.signal(signal.SIGINT, inherited)
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
    kept = json.loads((out / "front.json").read_text(encoding="utf-8"))["front"]
    assert kept
    result = call("run", tmp_path / "space.yaml", "--out", out)
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
        result = call("run", write(tmp_path), "--out", out, *extra)
        assert result.exit_code == 2
        assert "thesis.tex" in result.output
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    "command", [["show"], ["report"], ["export", "1", "--to", "x"], ["replay", "--sampler", "tpe"]]
)
def test_commands_on_a_folder_without_a_run_say_so(command: list[str], tmp_path: Path) -> None:
    """Reading a run where there is none is a wrong command, in one line."""
    (tmp_path / "study.txt").write_text("")
    result = call(command[0], tmp_path, *command[1:])
    assert result.exit_code == 2
    assert "holds no run of beats-search" in result.output


def test_a_damaged_study_is_named(tmp_path: Path) -> None:
    """A study.db that is no database is reported as such."""
    (tmp_path / "study.db").write_bytes(b"no database at all" * 100)
    result = call("show", tmp_path)
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
    result = call("run", write(tmp_path, text), "--out", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_a_missing_space_is_named(tmp_path: Path) -> None:
    """A space file that does not exist is a wrong command."""
    result = call("run", tmp_path / "nothing.yaml")
    assert result.exit_code == 2
    assert "nothing.yaml: there is no such file" in result.output


def test_missing_data_says_where_it_was_looked_for(tmp_path: Path) -> None:
    """Without the files of a data set the run ends before it begins and names the folder."""
    text = SPACE.replace('{name: "toys:stripes"}', "{name: mnist, root: here}")
    result = call("run", write(tmp_path, text), "--out", tmp_path / "out")
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
    result = call(command, write(tmp_path, text), *out)
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_library_that_is_missing_ends_with_3(tmp_path: Path) -> None:
    """A part that needs a library that nobody installed names it."""
    (tmp_path / "wants_more.py").write_text("import a_library_that_nobody_has\n")
    result = call("run", write(tmp_path, SPACE.replace("toys:net", "wants_more:net")), "--out", tmp_path / "out")
    assert result.exit_code == 3
    assert "a_library_that_nobody_has" in result.output


def test_a_class_that_validation_lacks_is_told(tmp_path: Path) -> None:
    """It is allowed, and both commands say so before anything else is done; `check` says what it imports first."""
    space = write(tmp_path, SPACE.replace("toys:stripes", "toys:lacking"))
    told = "notice: the validation data have no example of 3 of 10 classes ('line 7', 'line 8', 'line 9'): "
    checked = call("check", space)
    assert checked.exit_code == 0, checked.output
    assert told in " ".join(checked.output.split())
    ran = call("run", space, "--out", tmp_path / "out", "--trials", 1)
    assert told in " ".join(ran.output.split())


def test_check_says_what_it_imports_before_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that a space names is told with its file, also where importing it ends the command."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "not_to_be_trusted.py").write_text("raise RuntimeError('too late')\n", encoding="utf-8")
    checked = call("check", write(tmp_path, SPACE.replace("toys:net", "not_to_be_trusted:net")))
    assert checked.exit_code == 2
    said, after = " ".join(checked.output.split()).split("too late", 1)[0], checked.output
    assert f"imports not_to_be_trusted ({tmp_path / 'not_to_be_trusted.py'})" in said, after
