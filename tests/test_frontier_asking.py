"""What is known of plans before training: glances, what trials measured in their place, and failures."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import create_trial
from search_toy import OBJECTIVES, budget, finished, new_ledger, problem
from test_frontier_sampler import SPACE, foreseen, sampler_of, sit, study_of

from beats_search.records.objective import Constraint
from beats_search.records.outcome import Finished, Stopped, TrialOutcome
from beats_search.records.plan import TrialPlan
from beats_search.search.frontier.asking import Asking
from beats_search.search.frontier.codes import Codes
from beats_search.search.frontier.history import read_history, signs_of
from beats_search.search.frontier.oracle import OfFunction, oracle_of
from beats_search.search.reading import read_run
from beats_search.search.storage import closing_storage, open_storage
from beats_search.search.study import search


def test_what_was_measured_replaces_a_glance() -> None:
    """After trials of a kind their mean is what is known of it; another kind's answer stays."""
    oracle = OfFunction(("accuracy", "latency"), lambda _: (None, 0.5), lambda name: name == "kind")
    codes, study = Codes(SPACE), study_of(sampler_of())
    for x, took in ((0.1, 1.0), (0.2, 1.5)):
        params = {"x": x, "y": 0.5, "kind": "a"}
        study.add_trial(create_trial(params=params, distributions=SPACE, values=[0.9, took]))
    asking = Asking(codes, oracle, read_history(study, codes, oracle.names, 2, ours=False), np.array([1.0, -1.0]))
    rows = [codes.row({"x": 0.3, "y": 0.5, "kind": kind}) for kind in "ab"]
    for row in rows:
        asking.ask(row)
    assert asking.told(np.array(rows), 1) == [1.25, 0.5]


def test_a_failure_by_chance_condemns_no_structure() -> None:
    """A plan that could not be built is not asked about again; its like are, until a second has failed."""
    asked: list[str] = []

    def known_(params: Mapping[str, Any]) -> Sequence[float | None]:
        asked.append(params["kind"])
        if params["kind"] == "b" or asked == ["a"]:
            raise RuntimeError
        return None, 1.0

    oracle = OfFunction(("accuracy", "latency"), known_, lambda name: name == "kind")
    codes, study = Codes(SPACE), study_of(sampler_of())
    history = read_history(study, codes, oracle.names, 0, ours=False)
    asking = Asking(codes, oracle, history, np.array([1.0, -1.0]))
    rows = {kind: [codes.row({"x": x, "y": 0.5, "kind": kind}) for x in (0.1, 0.2, 0.3)] for kind in "ab"}
    for row in (*rows["a"], rows["a"][1], *rows["b"], rows["b"][2]):
        asking.ask(row)
    assert asked == ["a", "a", "b", "b"]
    assert asking.allows(np.array(rows["a"])) == [True] * 3
    assert asking.allows(np.array(rows["b"])) == [False] * 3
    assert len(asking.fresh) == 4


def test_a_limit_that_a_glance_kept_and_a_trial_broke_is_known_to_be_broken(tmp_path: Path) -> None:
    """A latency that turns out slower than the limit bars the like from then on."""
    limit = Constraint(name="latency_ms", sign="<=", bound=2.5)
    space = foreseen(lambda _: {"latency_ms": 1.0}, lambda _: 1.0)
    assert space.foresight is not None
    strict = replace(space, foresight=replace(space.foresight, constraints=(limit,)))
    sit(tmp_path / "s.db", 6, space=strict)
    names = tuple(goal.name for goal in OBJECTIVES)
    oracle, codes = oracle_of(strict, names), Codes(strict.distributions())
    with closing_storage(open_storage(tmp_path / "s.db")) as storage:
        study = optuna.load_study(study_name=None, storage=storage)
        history = read_history(study, codes, names, 99, ours=True)
        asking = Asking(codes, oracle, history, signs_of(study))
    ended = zip(history.rows, history.gains, strict=True)
    told = {float(-gains[1]): asking.allows(row[None])[0] for row, gains in ended if not np.isnan(gains).any()}
    assert {took <= limit.bound for took in told} == {True, False}
    assert told == {took: took <= limit.bound for took in told}


@pytest.mark.parametrize("alike", [True, False], ids=["widths decide", "all knobs decide"])
def test_nothing_is_sought_beyond_a_perfect_answer(tmp_path: Path, alike: bool) -> None:  # noqa: FBT001
    """Once a fast plan answers all right, slower ones are not proposed, however well plans like it do."""

    def run_trial(number: int, plan: TrialPlan, _: object) -> TrialOutcome:
        width = 32.0 if number == 0 else float(str(plan.model["width"]))
        off = abs(np.log10(plan.training.lr / 0.05))
        return finished(min(1.0, 1.02 - 0.05 * off) if width > 8 else max(0.1, 0.9 - 0.2 * off), width / 8)

    toy = replace(
        problem(run_trial),
        known=lambda plan: {"latency_ms": float(str(plan.model["width"])) / 8},
        decides=lambda path: not alike or path.startswith("model."),
    )
    with new_ledger(tmp_path / "s.db") as ledger:
        search(toy, ledger, budget(30, "frontier", start_queries=6, queries=3, pool=60))
    trials = read_run(tmp_path / "s.db").trials
    assert max(trial.outcome.accuracy for trial in trials if isinstance(trial.outcome, Finished)) == 1.0
    spared = [trial.plan.model["width"] for trial in trials if isinstance(trial.outcome, Stopped)]
    assert len(spared) <= 5
    assert len(set(spared)) == len(spared) or not alike
