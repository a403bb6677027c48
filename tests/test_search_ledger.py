"""The ledger: what is on disk, who may write it, and that a death between any two writes loses nothing."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from search_toy import LIMIT, OBJECTIVES, Death, Trials, budget, die, facts, new_ledger, plans_of, problem, sit
from sqlalchemy import event as sqlalchemy_event

from beats_search.records.errors import CommandError
from beats_search.records.event import Repeated
from beats_search.records.outcome import Failed, Finished, Stopped
from beats_search.search.ledger import Ledger
from beats_search.search.lock import Lock
from beats_search.search.reading import read_run
from beats_search.search.study import search

STATES = {Finished: "COMPLETE", Stopped: "PRUNED", Failed: "FAIL"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a study may be."""
    return tmp_path / "study.db"


def test_a_created_study_holds_the_facts(path: Path) -> None:
    """What is known before the first trial is read back as it was given."""
    with Ledger.create(path, facts(seed=3)) as ledger:
        assert ledger.facts == facts(seed=3)
    run = read_run(path)
    assert (run.name, run.seed, run.objectives, run.constraints) == ("toy", 3, OBJECTIVES, (LIMIT,))
    assert (run.classes, run.input_shape, run.environment) == (("a", "b"), (1, 2, 2), {"python": "3"})
    assert (run.trials, run.duplicates, dict(run.reference_point), dict(run.test_accuracy)) == ((), 0, {}, {})


def test_what_is_found_later_is_read_back(path: Path) -> None:
    """Reference point, test accuracies and the sampler are part of the run."""
    with new_ledger(path) as ledger:
        ledger.set_reference_point({"accuracy": 0.1, "latency_ms": 2.0})
        ledger.set_test_accuracy({7: 0.9, 12: 0.8})
        ledger.set_sampler("sobol")
        assert read_run(path) == ledger.run_record()
    run = read_run(path)
    assert run.reference_point == {"accuracy": 0.1, "latency_ms": 2.0}
    assert run.test_accuracy == {7: 0.9, 12: 0.8}
    assert run.sampler == "sobol"


def test_the_file_is_a_study_that_optuna_reads(path: Path) -> None:
    """Any tool for Optuna finds the study by the space's name, with named metrics, values, states and constraints."""
    sit(path, budget(16))
    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{path}")
    assert study.metric_names == ["accuracy", "latency_ms"]
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    by_number = {trial.number: trial for trial in study.trials}
    for record in read_run(path).trials[1:]:
        told = by_number[record.number]
        assert told.state.name == STATES[type(record.outcome)]
        if isinstance(record.outcome, Finished):
            assert told.values == [record.outcome.accuracy, record.outcome.latency.median_ms]
            assert told.constraints == {"size_kb <= 60": record.outcome.footprint.size_kb - 60.0}
    study._storage.remove_session()
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined] # no open file is left behind


def test_samplers_never_see_the_reference(path: Path) -> None:
    """Trial 0 has no values for the knobs, so it is not told as complete, which would spoil every sampler's space."""
    sit(path, budget(2))
    with Ledger.open(path) as ledger:
        assert ledger._study.trials[0].state.name == "FAIL"
        assert isinstance(ledger.account.records[0].outcome, Finished)


def test_a_second_writer_is_refused_while_readers_are_not(path: Path) -> None:
    """One process writes; the table and the report may look on."""
    with new_ledger(path):
        with pytest.raises(CommandError, match="another beats-search is running in this folder"):
            Ledger.open(path)
        assert read_run(path).name == "toy"
    Ledger.open(path).close()


def test_a_lock_ends_with_its_release(tmp_path: Path) -> None:
    """A released lock can be taken again, a held one cannot."""
    lock = Lock(tmp_path / "study.lock")
    with pytest.raises(CommandError):
        Lock(tmp_path / "study.lock")
    lock.release()
    Lock(tmp_path / "study.lock").release()


def test_a_run_is_not_overwritten(path: Path) -> None:
    """Creating a study where there is one is refused, and leaves it as it is."""
    new_ledger(path).close()
    before = path.read_bytes()
    with pytest.raises(CommandError, match="already"):
        Ledger.create(path, facts())
    assert path.read_bytes() == before


def nothing(path: Path) -> None:
    """Leave no file."""
    path.unlink(missing_ok=True)


def text(path: Path) -> None:
    """Leave something else."""
    path.write_text("not a database, but longer than a header of SQLite would be; " * 4)


def another_database(path: Path) -> None:
    """Leave the user's own database."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (x)")


def another_study(path: Path) -> None:
    """Leave a study of another program."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    optuna.create_study(storage=storage)
    storage.engine.dispose()


def cut_short(path: Path) -> None:
    """Leave the beginning of a ledger."""
    new_ledger(path).close()
    path.write_bytes(path.read_bytes()[:20_000])


def overwritten(path: Path) -> None:
    """Leave a ledger with rubbish in the middle."""
    new_ledger(path).close()
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + b"\xff" * 40_000 + whole[48_192:])


def from_the_future(path: Path) -> None:
    """Leave a ledger of a later version."""
    new_ledger(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE study_user_attributes SET value_json = '99' WHERE key = 'beats_search'")
        connection.commit()


@pytest.mark.parametrize(
    "make", [nothing, text, another_database, another_study, cut_short, overwritten, from_the_future]
)
def test_a_file_that_is_no_run_is_refused_and_left_alone(path: Path, make: Callable[[Path], None]) -> None:
    """Opening and reading name the file and say what to do; nothing is written into what is not ours."""
    make(path)
    before = path.read_bytes() if path.exists() else None
    for act in (Ledger.open, read_run):
        with pytest.raises(CommandError, match=r"study\.db"):
            act(path)
    assert (path.read_bytes() if path.exists() else None) == before


def test_any_folder_name_will_do(tmp_path: Path) -> None:
    """Characters that mean something in an URL are nothing special in a path."""
    path = tmp_path / "50% of #1? &c é" / "study.db"
    Ledger.create(path, facts()).close()
    assert read_run(path).name == "toy"


def test_a_run_that_cannot_be_written_can_be_read(path: Path) -> None:
    """A report from a read-only copy works."""
    sit(path, budget(2))
    path.chmod(0o444)
    path.parent.chmod(0o555)
    try:
        assert len(read_run(path).trials) == 2
    finally:
        path.parent.chmod(0o755)


PLAN = budget(6, "tpe", startup=2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an uninterrupted run of a finite space, with repeats."""
    path = tmp_path_factory.mktemp("whole") / "study.db"
    _, events = sit(path, PLAN, continuous=False)
    assert [event.number for event in events if isinstance(event, Repeated)] == [3]
    return path


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the first three trials of the same run; the next proposal is a repeat."""
    path = tmp_path_factory.mktemp("begun") / "study.db"
    sit(path, budget(3, "tpe", startup=2), continuous=False)
    return path


@pytest.mark.parametrize("write", range(1, 40, 4))
def test_a_death_at_any_write_changes_nothing(path: Path, whole: Path, begun: Path, write: int) -> None:
    """A search that dies at its n-th write and is started again ends with the trials of one that did not."""
    shutil.copy(begun, path)
    left = write

    def die_in_time(_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            die()

    with Ledger.open(path) as ledger:
        engine = ledger._study._storage._backend.engine  # type: ignore[attr-defined] # the disk, in Optuna's words
        sqlalchemy_event.listen(engine, "commit", die_in_time)
        with pytest.raises(Death):
            search(problem(Trials(), continuous=False), ledger, PLAN)
    sit(path, PLAN, continuous=False)
    assert plans_of(path) == plans_of(whole)
    with Ledger.open(path) as ledger:
        assert not [trial for trial in ledger._study.trials if not trial.state.is_finished()]
