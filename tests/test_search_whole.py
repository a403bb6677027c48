"""The whole search, with latency and accuracy as functions of the plan: equal for equal seeds, however cut off."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from search_toy import REFERENCE, budget, interrupt, new_ledger, outcome_of, problem

from beats_search.pareto import front_of_run
from beats_search.records.outcome import EpochScore, Finished, Stopped, TrialOutcome
from beats_search.records.plan import TrialPlan
from beats_search.records.run import RunRecord
from beats_search.search.attempt import KeepGoing
from beats_search.search.ledger import Ledger
from beats_search.search.reading import read_run
from beats_search.search.sitting import Ending
from beats_search.search.stopping import Stopping
from beats_search.search.study import search

EPOCHS = 4
TRIALS = 20


class Learning:
    """A `run_trial` whose plans learn along a curve and may be stopped on it; at some calls it does something else."""

    def __init__(self, instead: Mapping[int, Callable[[], object]]) -> None:
        """Begin at no calls."""
        self._calls = 0
        self._instead = instead

    def __call__(self, number: int, plan: TrialPlan, keep_going: KeepGoing) -> TrialOutcome:
        """Run one trial, epoch by epoch."""
        del number
        self._calls += 1
        self._instead.get(self._calls, lambda: None)()
        end = outcome_of(plan)
        if not isinstance(end, Finished):
            return end
        curve: list[EpochScore] = []
        for epoch in range(1, plan.training.epochs + 1):
            share = end.accuracy * (1 - 0.3 / epoch**2)
            curve.append(EpochScore(epoch=epoch, train_loss=1.0, accuracy=share, seconds=1.0))
            if not keep_going(curve[-1]):
                return Stopped(epoch=epoch, reason="", curve=tuple(curve))
        return replace(end, curve=tuple(curve))


def known(plan: TrialPlan) -> Mapping[str, float]:
    """Return what is known of a plan before it is trained."""
    if plan == REFERENCE:
        return {"latency_ms": 4.0, "size_kb": 50.0}
    width = float(str(plan.model["width"]))
    return {"latency_ms": width / 8, "size_kb": 2.0 * width}


def _longer(plan: TrialPlan) -> TrialPlan:
    return replace(plan, training=replace(plan.training, epochs=EPOCHS))


def sit(path: Path, instead: Mapping[int, Callable[[], object]]) -> Ending:
    """Search, or go on with a search, with all that the product does by default."""
    toy = problem(Learning(instead))
    longer = replace(toy.domain, draw=lambda suggest: _longer(toy.domain.draw(suggest)))
    whole = replace(toy, domain=longer, known=known, stopping=Stopping(fewest=4, spared=0.5, delta=0.6))
    with Ledger.open(path) if path.exists() else new_ledger(path) as ledger:
        return search(whole, ledger, budget(TRIALS, "frontier", startup=4, start_queries=20, queries=4, pool=100))


def told(run: RunRecord) -> list[object]:
    """Return all that may not depend on when a search was cut off; a second attempt has a number of its own."""
    return [(trial.plan, trial.outcome, trial.known, trial.spared_at) for trial in run.trials]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    """Return a run that nobody cut off."""
    path = tmp_path_factory.mktemp("whole") / "study.db"
    assert sit(path, {}) is not Ending.INTERRUPTED
    return read_run(path)


@pytest.mark.slow
def test_a_run_uses_all_that_saves_work(undisturbed: RunRecord) -> None:
    """In this run trials finish, and trials are stopped on their curve: what the other tests compare is there."""
    kinds = {type(trial.outcome) for trial in undisturbed.trials}
    assert {Finished, Stopped} <= kinds
    assert any(isinstance(trial.outcome, Stopped) and trial.outcome.curve for trial in undisturbed.trials)
    assert any(trial.spared_at for trial in undisturbed.trials)
    assert len(front_of_run(undisturbed)) > 1


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run(undisturbed: RunRecord, tmp_path: Path) -> None:
    """Plans, outcomes and spared trials are those of another run with the same seed."""
    sit(tmp_path / "study.db", {})
    assert told(read_run(tmp_path / "study.db")) == told(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("calls", [(1,), (3, 14)])
def test_a_restart_in_the_middle_changes_nothing(
    undisturbed: RunRecord, tmp_path: Path, calls: tuple[int, ...]
) -> None:
    """A search that was interrupted, once or twice, goes on to the same plans and the same front."""
    path = tmp_path / "study.db"
    before = 0
    for call in calls:
        assert sit(path, {call - before: interrupt}) is Ending.INTERRUPTED
        before = call
    sit(path, {})
    again = read_run(path)
    assert told(again) == told(undisturbed)
    assert [trial.plan for trial, _ in front_of_run(again)] == [trial.plan for trial, _ in front_of_run(undisturbed)]
