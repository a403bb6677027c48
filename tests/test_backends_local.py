"""Workers: processes that try plans side by side, each of which may die, hang or fail without the search."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from search_toy import REFERENCE, Trials, budget, new_ledger, outcome_of, plans_of, problem, sit
from worker_toys import Toys, learned

from beats_search.records.errors import SearchEndedError
from beats_search.records.event import Began, Ended, Event, Reclaimed
from beats_search.records.outcome import EpochScore, Failed, Stopped
from beats_search.records.part import Part
from beats_search.records.run import RunRecord
from beats_search.records.search_plan import SearchPlan
from beats_search.search.backends.local import Workers
from beats_search.search.crew import Done, Job
from beats_search.search.reading import read_run
from beats_search.search.study import by, search

BUDGET = budget(6)


def searched(
    folder: Path, toys: Toys, plan: SearchPlan = BUDGET, workers: int = 2
) -> tuple[RunRecord, Sequence[Event]]:
    """Search with so many workers and return the run with all events."""
    path, events = folder / "study.db", list[Event]()
    crew = Workers(toys, [{"TOY": str(index)} for index in range(workers)], plan.trial_timeout)
    with new_ledger(path) as ledger:
        search(problem(Trials()), ledger, plan, events.append, drive=by(crew))
    return read_run(path), events


def test_one_worker_tries_the_plans_that_this_process_would(tmp_path: Path) -> None:
    """With one worker, plans and outcomes are those of a search without any."""
    found, _ = searched(tmp_path, Toys(folder=tmp_path), workers=1)
    sit(tmp_path / "alone.db", BUDGET)
    assert plans_of(tmp_path / "alone.db") == [trial.plan for trial in found.trials]
    assert [trial.outcome for trial in found.trials] == [outcome_of(trial.plan) for trial in found.trials]


def test_workers_work_side_by_side_after_the_reference(tmp_path: Path) -> None:
    """The reference runs alone, its latency reaches all others, and two processes share the rest."""
    found, events = searched(tmp_path, Toys(folder=tmp_path, always="slow"), budget(9))
    assert [trial.number for trial in found.trials] == list(range(9))
    notes = [(tmp_path / str(number)).read_text(encoding="ascii").split() for number in range(9)]
    assert [scale for _, scale in notes] == ["None", *["4.0"] * 8]
    assert len({process for process, _ in notes}) == 2
    order = [(type(event), event.number if isinstance(event, Began) else -1) for event in events]
    assert order[:4] == [(Began, 0), (Ended, -1), (Began, 1), (Began, 2)]


def test_a_worker_that_dies_costs_one_attempt(tmp_path: Path) -> None:
    """Its trial comes again under the same number, and nothing else is tried twice."""
    toys = Toys(folder=tmp_path, instead={2: "die once"})
    found, events = searched(tmp_path, toys)
    assert [event.number for event in events if isinstance(event, Reclaimed)] == [2]
    assert [toys.begun(number) for number in range(6)] == [1, 1, 2, 1, 1, 1]
    assert found.trials[2].outcome == outcome_of(found.trials[2].plan)
    assert [trial.number for trial in found.trials] == list(range(6))


@pytest.mark.parametrize(("retries", "words"), [(0, "its process ended"), (1, "the process ended 2 times")])
def test_a_trial_that_kills_its_worker_has_failed(tmp_path: Path, retries: int, words: str) -> None:
    """After as many attempts as the space allows, with what ended the process."""
    found, _ = searched(tmp_path, Toys(folder=tmp_path, instead={1: "die"}), replace(BUDGET, retries=retries))
    outcome = found.trials[1].outcome
    assert isinstance(outcome, Failed)
    assert (outcome.stage, outcome.detail) == ("process", "ended by SIGKILL")
    assert outcome.reason.startswith(words)
    assert len(found.trials) == 6


def test_a_trial_that_takes_too_long_has_failed(tmp_path: Path) -> None:
    """Its process is killed and another one goes on."""
    found, _ = searched(tmp_path, Toys(folder=tmp_path, instead={1: "hang"}), replace(BUDGET, trial_timeout=0.5))
    assert found.trials[1].outcome == Failed(stage="timeout", reason="took longer than search.trial_timeout, 0.5 s")
    assert len(found.trials) == 6


def test_an_error_that_is_no_failure_of_the_trial_passes_through(tmp_path: Path) -> None:
    """A bug in a worker ends the search as itself, a full disk in plain words; both leave the plan to come again."""
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        searched(tmp_path, Toys(folder=tmp_path, instead={2: "bug"}))
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(SearchEndedError, match="no space left"):
        searched(other, Toys(folder=other, instead={2: "full"}))
    for folder in (tmp_path, other):
        sit(folder / "study.db", BUDGET)
        assert [trial.number for trial in read_run(folder / "study.db").trials] == list(range(6))


def test_workers_that_cannot_begin_end_the_search(tmp_path: Path) -> None:
    """Where processes die before they take a job, the search says so rather than call every trial failed."""
    with pytest.raises(SearchEndedError, match=r"3 workers died before .* exit code 7.*--workers 1"):
        searched(tmp_path, Toys(folder=tmp_path, unborn=True))


def test_a_trial_does_not_pay_for_the_time_it_is_kept_waiting(tmp_path: Path) -> None:
    """While the search itself is busy, the clock of a trial that waits for its answer stands still."""

    def slow(*_: object) -> bool:
        time.sleep(0.6)
        return True

    with Workers(Toys(folder=tmp_path, always="score"), [{}], trial_timeout=1.0) as crew:
        crew.begin(Job(number=1, plan=REFERENCE))
        assert crew.wait(slow) == Done(number=1, outcome=outcome_of(REFERENCE))


def test_the_judge_is_asked_after_each_rung(tmp_path: Path) -> None:
    """A worker goes on as long as it is told to, and says where it was stopped; other epochs wait for nobody."""
    asked: list[tuple[int, int]] = []

    def judge(number: int, score: EpochScore) -> bool:
        asked.append((number, score.epoch))
        return score.epoch < number

    with Workers(Toys(folder=tmp_path, always="score"), [{}]) as crew:
        crew.begin(Job(number=2, plan=REFERENCE))
        assert crew.wait(judge) == Done(number=2, outcome=Stopped(epoch=2, reason="told to", curve=()))
        crew.begin(Job(number=9, plan=REFERENCE))
        assert crew.wait(judge) == Done(number=9, outcome=outcome_of(REFERENCE))
    assert asked == [(2, 1), (2, 2), (9, 1), (9, 2)]


def test_a_trial_among_others_does_not_wait_for_its_answer(tmp_path: Path) -> None:
    """While the search is busy it goes on, but not beyond its last epoch, and ends when it is told to."""
    model = Part(name="toy", settings=(("width", 16),))
    plan = replace(REFERENCE, model=model, training=replace(REFERENCE.training, epochs=40, lr=0.05))
    epochs = tmp_path / "1.epochs"

    def busy(_: int, score: EpochScore) -> bool:
        _await(lambda: score.epoch == 40 or f"{score.epoch + 1}\n" in epochs.read_text(encoding="ascii"))
        return score.epoch < 40

    with Workers(Toys(folder=tmp_path, always="learn"), [{}, {}]) as crew:
        crew.begin(Job(number=1, plan=plan))
        found = crew.wait(busy)
        assert isinstance(found, Done)
        assert isinstance(found.outcome, Stopped)
        assert found.outcome.epoch == 40
        crew.begin(Job(number=2, plan=plan))
        found = crew.wait(lambda *_: False)
        assert isinstance(found, Done)
        assert isinstance(found.outcome, Stopped)
        crew.begin(Job(number=3, plan=plan))
        assert crew.wait(lambda *_: True) == Done(number=3, outcome=learned(plan, lambda _: True))


SEARCH = """
import signal
import sys
from pathlib import Path
from search_toy import Trials, budget, new_ledger, problem
from worker_toys import Toys
from beats_search.search.backends.local import Workers
from beats_search.search.study import by, search

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore it
    folder = Path(sys.argv[1])
    with new_ledger(folder / "study.db") as ledger:
        toys = Toys(folder=folder, instead={2: "hang"})
        print(search(problem(Trials()), ledger, budget(4), drive=by(Workers(toys, [{}, {}]))).name)
"""


@pytest.mark.parametrize(("number", "group", "code", "said"), [
    (signal.SIGINT, True, 0, "INTERRUPTED"), (signal.SIGKILL, False, -signal.SIGKILL, ""),
])  # fmt: skip
def test_workers_end_with_the_search(tmp_path: Path, number: int, group: bool, code: int, said: str) -> None:  # noqa: FBT001
    """Whether Ctrl-C reaches all of them or the search is killed, no worker is left, and the same command goes on."""
    script = tmp_path / "search.py"
    script.write_text(SEARCH, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        _await(lambda: (tmp_path / "2").exists() and (tmp_path / "2").read_text(encoding="ascii").endswith("\n"))
        worker = int((tmp_path / "2").read_text(encoding="ascii").split()[0])
        (os.killpg if group else os.kill)(running.pid, number)
        out, errors = running.communicate(timeout=60)
    assert (running.returncode, out.strip(), errors) == (code, said, "")
    _await(lambda: not _is_alive(worker))
    sit(tmp_path / "study.db", budget(4))
    assert [trial.number for trial in read_run(tmp_path / "study.db").trials] == list(range(4))


def _await(condition: Callable[[], bool], patience_s: float = 20.0) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="ascii").split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone before it was looked for, or while it was read
        return False
