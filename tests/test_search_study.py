"""The loop: what runs, what is answered from what is known, when it ends, and how it goes on."""

import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from search_toy import (
    REFERENCE,
    Death,
    Trials,
    budget,
    die,
    facts,
    finished,
    interrupt,
    new_ledger,
    outcome_of,
    plans_of,
    problem,
    sit,
)

from beats_search.records.errors import NothingFinishedError, SearchEndedError
from beats_search.records.event import Began, Ended, Reclaimed, Repeated
from beats_search.records.outcome import Failed, Finished, Stopped, TrialOutcome
from beats_search.records.plan import TrialPlan
from beats_search.search.ledger import Ledger
from beats_search.search.reading import read_run
from beats_search.search.sitting import PATIENCE, Ending
from beats_search.search.study import search


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a study may be."""
    return tmp_path / "study.db"


def test_the_reference_runs_first_as_trial_0(path: Path) -> None:
    """Trial 0 is the reference, it ran first, and it has no values for the knobs."""
    trials = Trials()
    sit(path, budget(3), trials)
    first = read_run(path).trials[0]
    assert (first.number, first.plan, dict(first.params)) == (0, REFERENCE, {})
    assert trials.plans[0] == REFERENCE


def test_the_budget_counts_trials_that_ran(path: Path) -> None:
    """The search ends when as many trials ran as the budget allows, the reference among them."""
    trials = Trials()
    ending, _ = sit(path, budget(6), trials)
    assert ending is Ending.TRIALS
    assert len(trials.plans) == len(read_run(path).trials) == 6


def test_every_outcome_is_read_back_as_it_was(path: Path) -> None:
    """The record of a run holds exactly the outcomes that the trials returned."""
    sit(path, budget(16))
    run = read_run(path)
    assert [trial.outcome for trial in run.trials] == [outcome_of(trial.plan) for trial in run.trials]
    assert {type(trial.outcome) for trial in run.trials} == {Finished, Stopped, Failed}


def test_a_known_plan_is_not_run_again(path: Path) -> None:
    """Every plan runs once; repeats are counted and reported with the trial that answered them."""
    trials = Trials()
    _, events = sit(path, budget(8), trials, continuous=False)
    repeats = [event for event in events if isinstance(event, Repeated)]
    assert len({plan.fingerprint() for plan in trials.plans}) == len(trials.plans)
    assert read_run(path).duplicates == len(repeats) > 0


def test_a_finite_space_ends_when_every_plan_was_tried(path: Path) -> None:
    """With all 12 plans known there is nothing left, whatever the budget."""
    ending, _ = sit(path, budget(100), continuous=False)
    assert ending is Ending.EXHAUSTED
    assert len(read_run(path).trials) == 1 + 12


def test_repeats_in_a_row_end_the_search(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sampler that proposes one plan for ever is stopped."""
    sampler = optuna.samplers.RandomSampler
    monkeypatch.setattr("beats_search.search.samplers.random_search.RandomSampler", lambda seed: sampler(seed=seed * 0))
    monkeypatch.setattr("beats_search.search.sitting.STALLED", 7)
    monkeypatch.setattr("beats_search.search.sitting.PATIENCE", 99)
    ending, events = sit(path, budget(5))
    assert ending is Ending.STALLED
    assert sum(isinstance(event, Repeated) for event in events) == 7


def test_a_sampler_that_repeats_itself_is_helped_out(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a few repeats in a row proposals are random, so that the budget is spent on new plans."""
    sampler = optuna.samplers.RandomSampler
    monkeypatch.setattr("beats_search.search.samplers.tpe.TPESampler", lambda **_: sampler(seed=0))
    ending, _ = sit(path, budget(4, "tpe"))
    assert ending is Ending.TRIALS
    assert read_run(path).duplicates == 2 * PATIENCE


def test_no_trial_begins_after_the_time_is_spent(path: Path) -> None:
    """Time counts over all sittings; a trial that has begun is finished."""

    def ticking() -> Iterator[float]:
        now = 0.0
        while True:
            yield now
            now += 0.5

    def one_sitting(timeout: float) -> Ending:
        clock = ticking()
        with Ledger.open(path) if path.exists() else new_ledger(path) as ledger:
            return search(problem(Trials()), ledger, budget(99, timeout=timeout), clock=lambda: next(clock))

    assert one_sitting(5.0) is Ending.TIME
    first = read_run(path)
    assert 5.0 - 1.5 <= first.seconds <= 5.0 + 1.0
    assert one_sitting(5.0) is Ending.TIME
    assert len(read_run(path).trials) - len(first.trials) <= 1
    assert one_sitting(10.0) is Ending.TIME
    assert 10.0 - 1.5 <= read_run(path).seconds <= 10.0 + 1.0


def test_events_tell_what_happens_in_order(path: Path) -> None:
    """Each trial that ran began and then ended, one after the other."""
    _, events = sit(path, budget(4))
    told = [(type(event), event.number if isinstance(event, Began) else event.record.number) for event in events]  # type: ignore[union-attr] # no repeats here
    assert told == [(kind, number) for number in range(4) for kind in (Began, Ended)]


@pytest.mark.parametrize("call", [1, 2, 5])
def test_ctrl_c_is_an_ending_that_loses_nothing(path: Path, call: int) -> None:
    """After Ctrl-C the same command runs the plan again, and ends with the plans of an uninterrupted run."""
    ending, _ = sit(path, budget(7), Trials({call: interrupt}))
    assert ending is Ending.INTERRUPTED
    assert len(read_run(path).trials) == call - 1
    ending, events = sit(path, budget(7))
    sit(path.with_name("whole.db"), budget(7))
    assert ending is Ending.TRIALS
    assert plans_of(path) == plans_of(path.with_name("whole.db"))
    assert not any(isinstance(event, Reclaimed) for event in events)


def test_ctrl_c_between_trials_is_an_ending_too(path: Path) -> None:
    """Ctrl-C while an event is shown ends the search with all that was told."""

    def press(event: object) -> None:
        if isinstance(event, Ended) and event.record.number == 2:
            raise KeyboardInterrupt

    with new_ledger(path) as ledger:
        assert search(problem(Trials()), ledger, budget(9), press) is Ending.INTERRUPTED
    assert len(read_run(path).trials) == 3


KILLED = """
import os, signal, sys
from pathlib import Path
from search_toy import Trials, budget, sit
sit(Path(sys.argv[1]), budget(6), Trials({int(sys.argv[2]): lambda: os.kill(os.getpid(), signal.SIGKILL)}))
"""


def test_a_killed_process_loses_nothing(path: Path) -> None:
    """What a killed process left running is reported, runs again, and changes no plan."""
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), "4"],
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    assert killed.returncode == -signal.SIGKILL
    _, events = sit(path, budget(6))
    sit(path.with_name("whole.db"), budget(6))
    assert [event.number for event in events if isinstance(event, Reclaimed)] == [3]
    assert plans_of(path) == plans_of(path.with_name("whole.db"))


def test_a_plan_that_kills_twice_has_failed(path: Path) -> None:
    """A plan during which the process ended twice is a failure, so that the search can go on without it."""
    for _ in range(2):
        with pytest.raises(Death):
            sit(path, budget(6), Trials({3 if not path.exists() else 1: die}))
    sit(path, budget(6))
    failed = [
        trial
        for trial in read_run(path).trials
        if trial.outcome
        == Failed(stage="process", reason="the process ended 2 times while this plan ran", detail="killed")
    ]
    assert len(failed) == 1
    assert len(read_run(path).trials) == 6


def test_a_space_says_how_often_a_plan_may_end_the_process(path: Path) -> None:
    """With retries to spare, a plan that was cut off by two bugs and two deaths is tried a fifth time."""
    plan = replace(budget(4), retries=4)

    def bug() -> None:
        raise ZeroDivisionError

    for ends, error in ((bug, ZeroDivisionError), (die, Death)) * 2:
        with pytest.raises(error):
            sit(path, plan, Trials({1 if path.exists() else 3: ends}))
    sit(path, plan)
    assert not any(
        isinstance(trial.outcome, Failed) and trial.outcome.stage == "process" for trial in read_run(path).trials
    )
    assert [trial.number for trial in read_run(path).trials] == [0, 1, 2, 3]


def test_an_error_that_is_no_failure_of_the_trial_passes_through(path: Path) -> None:
    """A bug ends the search as itself, leaves no trial running, and its plan gets a second attempt."""

    def bug() -> None:
        raise ZeroDivisionError

    crashed = Trials({3: bug})
    with pytest.raises(ZeroDivisionError):
        sit(path, budget(5), crashed)
    again = Trials()
    _, events = sit(path, budget(5), again)
    assert again.plans[0] == crashed.plans[-1]
    assert not any(isinstance(event, Reclaimed) for event in events)
    assert len(read_run(path).trials) == 5


def test_a_full_disk_ends_the_search_in_plain_words(path: Path) -> None:
    """When a write fails, what had finished is kept, and the search goes on once there is room."""
    with new_ledger(path) as ledger:

        def fill(event: object) -> None:
            if isinstance(event, Ended) and event.record.number == 3:
                with ledger._study._storage._backend.engine.connect() as connection:  # type: ignore[attr-defined] # the disk is full
                    pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
                    connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

        with pytest.raises(SearchEndedError, match=r"study\.db.*disk is full.*same command goes on"):
            search(problem(Trials()), ledger, budget(500), fill)
    kept = plans_of(path)
    assert len(kept) >= 4
    sit(path, budget(len(kept) + 3))
    assert plans_of(path)[: len(kept)] == kept
    assert len(plans_of(path)) == len(kept) + 3


def test_a_trial_without_room_for_its_files_is_a_full_disk_too(path: Path) -> None:
    """ENOSPC from a trial ends the search the same way, and the plan runs again."""

    def no_room() -> None:
        raise OSError(28, "No space left on device", "model.onnx")

    trials = Trials({3: no_room})
    with pytest.raises(SearchEndedError, match="No space left"):
        sit(path, budget(4), trials)
    again = Trials()
    sit(path, budget(4), again)
    assert again.plans[0] == trials.plans[-1]


def test_a_failed_reference_ends_the_search_and_is_tried_again(path: Path) -> None:
    """Without a reference there is nothing to compare with: the error names stage and reason, and trial 0 is open."""

    def fails(number: int, plan: TrialPlan, _: object) -> TrialOutcome:
        del number, plan
        return Failed(stage="export", reason="no such operator")

    with (
        new_ledger(path) as ledger,
        pytest.raises(NothingFinishedError, match=r"'export': no such operator.*`reference:`"),
    ):
        search(problem(fails), ledger, budget(5))
    assert read_run(path).trials[0].outcome == Failed(stage="export", reason="no such operator")
    sit(path, budget(5))
    run = read_run(path)
    assert [trial.number for trial in run.trials] == [0, 1, 2, 3, 4]
    assert isinstance(run.trials[0].outcome, Finished)
    assert run.reference_point == {"accuracy": 0.1, "latency_ms": 1.1 * 4.0}


def test_a_value_that_is_no_number_is_a_failure(path: Path) -> None:
    """A finished trial with NaN where an objective or a limit is read counts as failed, with the name of the value."""

    def nan(number: int, plan: TrialPlan, _: object) -> TrialOutcome:
        return finished(0.5, 1.0, size_kb=math.nan) if number else outcome_of(plan)

    with new_ledger(path) as ledger:
        search(problem(nan), ledger, budget(2))
    assert read_run(path).trials[1].outcome == Failed(
        stage="measure", reason="size_kb is nan, which is not a finite number"
    )


def test_a_proposal_of_the_reference_is_answered_from_it(path: Path) -> None:
    """A plan that equals the reference is not run a second time, and the samplers learn its values."""
    sit(path, budget(2))
    inside = read_run(path).trials[1].plan
    other = path.with_name("other.db")
    with Ledger.create(other, facts(reference=inside)) as ledger:
        trials = Trials()
        search(problem(trials), ledger, budget(4), lambda _: None)
    assert trials.plans.count(inside) == 1
    assert read_run(other).duplicates == 1
