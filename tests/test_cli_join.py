"""Runs whose study is in a database: each machine ends with the whole run, and what does not fit is refused."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from cli_calls import call, write
from typer.testing import Result

from beats_search.app import recording
from beats_search.pareto import front_of_run
from beats_search.search.lock import Lock
from beats_search.search.reading import read_run

pytestmark = pytest.mark.usefixtures("toys_importable")


def run(tmp_path: Path, machine: str, *more: object) -> Result:
    """Run the tiny space on a machine, which is a folder here, with the study in a database."""
    storage = f"search.storage=sqlite:///{tmp_path}/studies.db"
    return call("run", write(tmp_path), "--set", storage, "--out", tmp_path / machine, *more)


@pytest.mark.slow
def test_a_database_that_goes_away_ends_the_search_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the database says and what is kept are told once, with the exit code of a search that ended early."""

    def lose(*_: object) -> None:
        with closing(sqlite3.connect(tmp_path / "studies.db")) as connection, connection:
            connection.execute("DROP TABLE trial_user_attributes")
            connection.execute("DROP TABLE study_user_attributes")

    monkeypatch.setattr(recording, "hand_over", lose)
    ended = run(tmp_path, "one", "--trials", 3)
    assert ended.exit_code == 130, ended.output
    assert "cannot be written: no such table" in ended.output
    assert "unexpected" not in ended.output


@pytest.mark.slow
def test_each_machine_ends_with_the_whole_run(tmp_path: Path) -> None:
    """The second one goes on where the first one was, and gets the models that it lacks from the database."""
    assert run(tmp_path, "one", "--trials", 3).exit_code == 0
    ended = run(tmp_path, "two", "--join")
    assert ended.exit_code == 0, ended.output
    whole = read_run(tmp_path / "two" / "study.db")
    assert len(whole.trials) == 4
    front = {trial.number for trial, _ in front_of_run(whole)}
    assert {0} | front <= {int(path.parent.name) for path in (tmp_path / "two").glob("models/*/model.onnx")}
    assert len(read_run(tmp_path / "one" / "study.db").trials) == 3
    edited = run(tmp_path, "two", "--join", "--set", "training.epochs=3")
    assert edited.exit_code == 2
    assert "is of another space" in edited.output
    anew = run(tmp_path, "two", "--fresh", "--trials", 1)
    assert anew.exit_code == 0, anew.output
    assert len(read_run(tmp_path / "two" / "study.db").trials) == 1


@pytest.mark.slow
def test_a_run_of_its_own_is_not_replaced(tmp_path: Path) -> None:
    """A folder whose study is in no database keeps it."""
    assert call("run", write(tmp_path), "--out", tmp_path / "own", "--trials", 1).exit_code == 0
    before = (tmp_path / "own" / "study.db").read_bytes()
    refused = run(tmp_path, "own", "--join")
    assert refused.exit_code == 2
    assert "holds a run of its own" in " ".join(refused.output.split())
    assert (tmp_path / "own" / "study.db").read_bytes() == before


def test_two_processes_of_one_machine_need_two_folders(tmp_path: Path) -> None:
    """The second one is told so before it touches anything."""
    (tmp_path / "one").mkdir()
    lock = Lock(tmp_path / "one" / "study.lock")
    refused = run(tmp_path, "one", "--join")
    lock.release()
    assert refused.exit_code == 2
    assert "another beats-search is running in this folder" in " ".join(refused.output.split())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--join"], "--join needs a storage that others use too"),
        (["--join", "--fresh", "--set", "search.storage=sqlite:////tmp/s.db"], "give one of them"),
    ],
)
def test_a_join_that_makes_no_sense_is_told(options: list[str], told: str, tmp_path: Path) -> None:
    """Without a database there is nothing to join."""
    refused = call("run", write(tmp_path), "--out", tmp_path / "out", *options)
    assert refused.exit_code == 2
    assert told in " ".join(refused.output.split())
    assert not (tmp_path / "out").exists()
