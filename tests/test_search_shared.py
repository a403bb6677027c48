"""Several machines on one study: no trial is lost, none tried twice, and what a vanished machine had begun goes on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import optuna
import postgres
import pytest
from optuna.samplers import RandomSampler as Random
from optuna.storages import RDBStorage
from search_toy import Trials, budget, facts, finished, problem

from beats_search.records.errors import CommandError
from beats_search.records.outcome import Failed, Finished, TrialOutcome
from beats_search.records.plan import TrialPlan
from beats_search.records.run import RunRecord
from beats_search.search.leases import Rhythm
from beats_search.search.ledger import Ledger
from beats_search.search.reading import read_run
from beats_search.search.shared import copy_shared, forget_shared, open_shared
from beats_search.search.sitting import Ending
from beats_search.search.storage import closing_storage
from beats_search.search.study import search

TESTS = Path(__file__).resolve().parent
QUICK = Rhythm(beat_s=0.2, grace_s=2.0)
MUTE = Rhythm(beat_s=1000.0, grace_s=2.0)
"""Of a process that gives no signs of life."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Return the address of a PostgreSQL database."""
    if reason := postgres.missing():
        pytest.skip(reason)
    with postgres.server() as address:
        yield address


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return the address of a database without a study."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/studies.db"
    else:
        found: str = request.getfixturevalue("server")
        forget_shared(found, "toy")
        yield found


def joined(address: str, *, join: bool = True, rhythm: Rhythm = QUICK) -> Ledger:
    """Open the toy study in a database."""
    return open_shared(address, facts(), lambda _: None, join=join, rhythm=rhythm)


def copied(address: str, folder: Path) -> RunRecord:
    """Return the run in a database as its copy in a folder tells it."""
    copy_shared(address, "toy", folder / "study.db")
    return read_run(folder / "study.db")


def test_two_processes_share_one_search(address: str, tmp_path: Path) -> None:
    """What one tries, the other knows; together they spend the budget, and no plan is tried twice."""
    with joined(address) as one, joined(address) as two:
        trials = [Trials(), Trials()]
        assert search(problem(trials[0]), one, budget(6, "sobol")) is Ending.TRIALS
        assert search(problem(trials[1]), two, budget(12, "sobol")) is Ending.TRIALS
        assert search(problem(trials[0]), one, budget(13, "sobol")) is Ending.TRIALS
    record = copied(address, tmp_path)
    plans = [trial.plan.fingerprint() for trial in record.trials]
    assert len(plans) == len(set(plans)) == 13
    assert record.reference_point


def test_a_trial_of_a_process_that_vanished_is_taken_over(address: str, tmp_path: Path) -> None:
    """Its number and its plan stay; another process tries it as soon as the grace is over, and not before."""
    with joined(address) as survivor:
        search(problem(Trials()), survivor, budget(2, "sobol"))
        vanished = joined(address, rhythm=MUTE)
        begun: list[TrialPlan] = []

        def die(_: int, plan: TrialPlan, __: object) -> TrialOutcome:
            begun.append(plan)
            raise SystemExit  # as little is told of it as of a process that was killed

        with pytest.raises(SystemExit):
            search(problem(die), vanished, budget(3, "sobol"))
        assert survivor.take_over(2) == ()
        began = time.monotonic()
        assert search(problem(Trials()), survivor, budget(3, "sobol")) is Ending.TRIALS
        assert time.monotonic() - began > QUICK.grace_s / 2
        record = copied(address, tmp_path)
        assert [trial.plan for trial in record.trials[2:]] == begun
        assert [trial.number for trial in record.trials] == [0, 1, 2]
        vanished.close()


def test_who_seemed_dead_does_not_end_what_another_has_taken_over(address: str, tmp_path: Path) -> None:
    """A process that comes back after the grace drops its trial: the other one's answer is the only one."""
    with joined(address) as other, joined(address, rhythm=MUTE) as asleep:
        search(problem(Trials()), other, budget(2, "sobol"))

        def sleep(number: int, plan: TrialPlan, __: object) -> TrialOutcome:
            time.sleep(QUICK.grace_s + 1.5)  # SQLite tells whole seconds
            assert other.take_over(2) == (number,)
            trial, again = other.retry(other.account.lost[0])
            assert again == plan
            assert other.holds(trial)
            other.tell(trial, finished(0.77, 4.0), began_s=0.0, seconds=1.0)
            return finished(0.5, 4.0)

        search(problem(sleep), asleep, budget(3, "sobol"))
    third = copied(address, tmp_path).trials[2].outcome
    assert isinstance(third, Finished)
    assert third.accuracy == 0.77


def test_a_reference_whose_worker_died_is_tried_again(address: str) -> None:
    """By the process that holds it, at once."""
    with joined(address) as alone:
        first = alone.ask_reference()
        assert first is not None
        again = alone.ask_reference()
        assert again is not None
        assert again.number == 0
        with joined(address) as other:
            assert other.ask_reference() is None


def test_who_has_nothing_left_waits_for_the_others(address: str) -> None:
    """Also where the space is exhausted: the last plan of a machine that vanishes is still to be tried."""
    few = problem(Trials(), continuous=False)
    with joined(address) as survivor, joined(address, rhythm=MUTE) as vanished:
        search(few, survivor, budget(12, "grid"))

        def die(*_: object) -> TrialOutcome:
            raise SystemExit

        with pytest.raises(SystemExit):
            search(replace(few, run_trial=die), vanished, budget(100, "grid"))
        assert search(few, survivor, budget(100, "grid")) is Ending.EXHAUSTED
        assert len(survivor.account.drawn) == 12


def test_who_was_asleep_goes_on_with_its_own_trial(address: str) -> None:
    """Where nobody has taken it over, it is no trial of a process that vanished."""
    with joined(address, rhythm=MUTE) as asleep:
        search(problem(Trials()), asleep, budget(1))
        trial = asleep.ask(Random())
        time.sleep(QUICK.grace_s + 1.5)
        assert asleep.take_over(2) == ()
        assert asleep.holds(trial)


def test_two_processes_that_propose_the_same_plan_try_it_once(address: str) -> None:
    """The second to begin it is told whose it is."""
    with joined(address) as one, joined(address) as two:
        search(problem(Trials()), one, budget(1))
        first, second = one.ask(Random()), two.ask(Random())
        assert one.begin(first, facts().reference) is None
        assert two.begin(second, facts().reference) == first.number


def test_a_study_at_work_is_joined_on_request_alone(address: str) -> None:
    """Without it, one message says how; once the others have gone, none is needed, and nothing is lost."""
    with joined(address) as one:
        one.ask(Random())
        with pytest.raises(CommandError, match=r"1 other process works on it; --join"):
            joined(address, join=False)
        with pytest.raises(CommandError, match=r"--fresh does not delete it"):
            forget_shared(address, "toy")
    joined(address, join=False).close()
    forget_shared(address, "toy")


def test_a_study_of_somebody_else_is_not_deleted(address: str) -> None:
    """A database may hold studies of others under any name; one of ours whose beginning was cut off may go."""
    joined(address).close()
    forget_shared(address, "toy")
    with closing_storage(RDBStorage(address.replace("postgresql:", "postgresql+psycopg:"))) as storage:
        begun = optuna.create_study(storage=storage, study_name="toy")
        begun.set_user_attr("name", "a run that began")
        forget_shared(address, "toy")
        theirs = optuna.create_study(storage=storage, study_name="toy")
        theirs.add_trial(optuna.trial.create_trial(value=1.0))
        with pytest.raises(CommandError, match="none of beats-search, so --fresh does not delete it"):
            forget_shared(address, "toy")
        assert len(theirs.trials) == 1
        optuna.delete_study(study_name="toy", storage=storage)


def test_a_file_reaches_another_machine(address: str) -> None:
    """By number, the last one that was put, and it goes with the study."""
    with joined(address) as one, joined(address) as two:
        assert one.handover is not None
        assert two.handover is not None
        for data in (b"first", bytes(range(256)) * 1000):
            one.handover.put(3, "model.onnx", data)
        assert two.handover.get(3) == ("model.onnx", bytes(range(256)) * 1000)
        assert two.handover.get(4) is None
    forget_shared(address, "toy")
    with joined(address) as again:
        assert again.handover is not None
        assert again.handover.get(3) is None


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("postgresql://nobody@127.0.0.1:1/none", r"search\.storage postgresql://nobody@127\.0\.0\.1:1/none cannot be"),
        ("sqlite:////nowhere/at/all/studies.db", r"search\.storage sqlite:////nowhere.* unable to open database file"),
    ],
)
def test_a_database_that_cannot_be_used_is_told(address: str, told: str) -> None:
    """Which one, and what it says."""
    with pytest.raises(CommandError, match=told):
        joined(address)


@pytest.mark.slow
def test_two_machines_under_fire_lose_nothing(server: str, tmp_path: Path) -> None:
    """Two searches of two workers share 200 trials; one is killed on the way, and the other ends all there is."""
    forget_shared(server, "toy")
    with ExitStack() as stack:
        searches = [stack.enter_context(_begin(server, tmp_path)) for _ in range(2)]
        while len(list(tmp_path.iterdir())) < 80:
            assert searches[0].poll() is searches[1].poll() is None
            time.sleep(0.1)
        os.kill(searches[0].pid, signal.SIGKILL)
        told, errors = searches[1].communicate(timeout=240)
        assert (told.strip(), errors) == ("TRIALS", "")
    record = copied(server, tmp_path)
    plans = [trial.plan.fingerprint() for trial in record.trials]
    assert len(plans) == len(set(plans)) == 200
    assert not any(isinstance(trial.outcome, Failed) and trial.outcome.stage == "process" for trial in record.trials)
    begun = [len(notes.read_text(encoding="ascii").splitlines()) for notes in tmp_path.glob("[0-9]*")]
    assert len(begun) == 200
    assert sum(begun) <= 200 + 2, "only what the two workers of the killed search were at was begun twice"


def _begin(address: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(TESTS / "faults" / "joint_search.py"), address, str(folder), "200"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
