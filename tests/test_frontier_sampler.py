"""The frontier sampler: alone in an Optuna study, and as a part in a run. Failures, limits, conditions, restarts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna import Study, Trial
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import TrialState, create_trial
from search_toy import LIMIT, OBJECTIVES, budget, domain, finished, interrupt, new_ledger, outcome_of, plans_of, problem

from beats_search import plugins
from beats_search.records.objective import Direction
from beats_search.records.outcome import Failed, TrialOutcome
from beats_search.records.plan import TrialPlan
from beats_search.records.search_plan import SearchPlan
from beats_search.search.attempt import RunTrial
from beats_search.search.domain import Domain
from beats_search.search.foresight import Foresight
from beats_search.search.frontier.codes import Codes
from beats_search.search.frontier.history import read_history
from beats_search.search.ledger import Ledger
from beats_search.search.reading import read_run
from beats_search.search.samplers.frontier import Frontier, FrontierSampler
from beats_search.search.storage import closing_storage, open_storage, silence
from beats_search.search.study import search

SPACE: dict[str, BaseDistribution] = {
    "x": FloatDistribution(0.0, 1.0),
    "y": FloatDistribution(0.0, 1.0),
    "kind": CategoricalDistribution(("a", "b", "c")),
}
QUICK = Frontier(startup=4, start_queries=20, queries=5, pool=60)
Known = Callable[[dict[str, Any]], Sequence[float | None]]
silence()


def latency(params: Mapping[str, Any]) -> float:
    """Return what is known: more of x is slower, and so is one kind."""
    return 1.0 + float(params["x"]) + (0.3 if params["kind"] == "c" else 0.0)


def accuracy(params: Mapping[str, Any]) -> float:
    """Return what training tells: more of x is better, y has a best value, and a kind may help."""
    return 0.5 + 0.3 * float(params["x"]) - abs(float(params["y"]) - 0.3) ** 2 + (0.1 if params["kind"] == "b" else 0.0)


def size(params: Mapping[str, Any]) -> float:
    """Return a third objective: less of x is larger, and so is any other y than the best."""
    return 2.0 - float(params["x"]) + abs(float(params["y"]) - 0.3)


def known(params: dict[str, Any]) -> Sequence[float | None]:
    """Return the latency, which is the second objective."""
    return [None, latency(params)]


def study_of(sampler: FrontierSampler, *directions: Direction) -> Study:
    """Return a new study in memory."""
    return optuna.create_study(directions=list(directions or ("maximize", "minimize")), sampler=sampler)


def sampler_of(known_: Known | None = known, seed: int = 0) -> FrontierSampler:
    """Return a sampler for accuracy and latency."""
    return FrontierSampler(known_, seed=seed, reference_point=(0.0, 2.5), settings=QUICK)


def run(study: Study, trials: int, tell: Callable[[Mapping[str, Any]], Sequence[float] | None]) -> list[dict[str, Any]]:
    """Ask and tell; None is a failure. Return the values proposed."""
    proposed = []
    for _ in range(trials):
        trial = study.ask(SPACE)
        proposed.append(trial.params)
        values = tell(trial.params)
        study.tell(trial, values, state=TrialState.FAIL if values is None else None)
    return proposed


def both(params: Mapping[str, Any]) -> Sequence[float]:
    """Return accuracy and latency."""
    return accuracy(params), latency(params)


@pytest.mark.parametrize("known_", [known, None], ids=["known", "nothing known"])
def test_it_learns(known_: Known | None) -> None:
    """Later proposals are near the best y and mostly of the best kind, whether or not latency is known."""
    proposed = run(study_of(sampler_of(known_)), 18, both)[-8:]
    assert sum(params["kind"] == "b" for params in proposed) >= 4
    assert sorted(abs(params["y"] - 0.3) for params in proposed)[4] < 0.15


def test_an_answer_holds_for_what_it_does_not_depend_on() -> None:
    """Where latency is said to depend on the kind alone, each kind is asked about once."""
    asked: list[str] = []

    def known_(params: Mapping[str, Any]) -> Sequence[float | None]:
        asked.append(params["kind"])
        return None, latency({"x": 0.5, "kind": params["kind"]})

    sampler = FrontierSampler(known_, decides=lambda name: name == "kind", reference_point=(0.0, 2.5), settings=QUICK)
    run(study_of(sampler), 8, both)
    assert sorted(asked) == sorted(set(asked))


def test_a_kind_that_a_glance_made_too_fast_is_not_tried_forever() -> None:
    """Trials of the kind that seems fast but is slow end soon."""
    slow = {"a": 1.5, "b": 1.5, "c": 2.4}
    sampler = FrontierSampler(
        lambda params: (None, 0.2 if params["kind"] == "c" else slow[params["kind"]]),
        decides=lambda name: name == "kind",
        reference_point=(0.0, 2.5),
        settings=QUICK,
    )
    proposed = run(study_of(sampler), 24, lambda params: (accuracy(params), slow[params["kind"]]))
    assert [params["kind"] for params in proposed[-12:]].count("c") <= 4


def test_optimize_needs_nothing_else() -> None:
    """In an ordinary study, whose space is inferred from its trials, every trial finishes and none repeats."""

    def objective(trial: Trial) -> tuple[float, float]:
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        params = {"x": x, "y": y, "kind": trial.suggest_categorical("kind", ["a", "b", "c"])}
        return accuracy(params), latency(params)

    study = study_of(sampler_of())
    study.optimize(objective, n_trials=10)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 10
    assert len({tuple(trial.params.items()) for trial in study.trials}) == 10


@pytest.mark.parametrize(
    ("directions", "names", "told"),
    [
        (("minimize", "maximize"), "la", "l"),
        (("maximize", "minimize", "minimize"), "asl", "sl"),
        (("minimize", "maximize", "minimize"), "sal", "l"),
        (("minimize", "minimize", "maximize"), "lsa", ""),
        (("maximize", "minimize"), "al", "al"),
    ],
    ids=["reversed", "two known", "one of three known", "three unknown", "all known"],
)
def test_objectives_in_any_order(directions: tuple[Direction, ...], names: str, told: str) -> None:
    """Two or three objectives, in any order and any number of them known, lead to the plans worth having."""
    formulas = {"a": accuracy, "l": latency, "s": size}
    corner = {"a": 0.0, "l": 2.5, "s": 3.0}
    sampler = FrontierSampler(
        lambda params: [formulas[name](params) if name in told else None for name in names],
        reference_point=[corner[name] for name in names],
        settings=QUICK,
    )
    trials = 15 if told else 24  # what is known need not be learned
    proposed = run(study_of(sampler, *directions), trials, lambda params: [formulas[name](params) for name in names])
    assert sorted(abs(params["y"] - 0.3) for params in proposed[-8:])[3] < 0.2


def test_the_same_study_gives_the_same_proposals(tmp_path: Path) -> None:
    """A sampler made anew for each trial, on a study read from disk, proposes what one in one process does."""
    once = run(study_of(sampler_of()), 7, both)
    address = f"sqlite:///{tmp_path / 'study.db'}"
    again: list[dict[str, Any]] = []
    for _ in range(7):
        storage = RDBStorage(address)
        study = optuna.create_study(
            storage=storage,
            study_name="s",
            directions=["maximize", "minimize"],
            sampler=sampler_of(),
            load_if_exists=True,
        )
        again += run(study, 1, both)
        storage.remove_session()
        storage.engine.dispose()
    assert again == once
    assert run(study_of(sampler_of(seed=1)), 3, both) != once[:3]


def test_what_was_asked_once_stays_known() -> None:
    """No plan is asked for twice in a study, and the budget of queries holds."""
    asked: list[tuple[Any, ...]] = []

    def counting(params: dict[str, Any]) -> Sequence[float | None]:
        asked.append(tuple(params.items()))
        return known(params)

    run(study_of(sampler_of(counting)), 14, both)
    assert len(asked) == len(set(asked))
    assert QUICK.start_queries < len(asked) <= QUICK.start_queries + 14 * QUICK.queries


def test_a_cost_that_cannot_be_told_ends_no_search(tmp_path: Path) -> None:
    """Of a plan that cannot be built there is no cost; the trial says what is wrong."""

    def refuse(_: TrialPlan) -> float:
        raise RuntimeError("no such layer")

    sit(tmp_path / "s.db", 8, space=foreseen(measured, refuse))
    assert len(plans_of(tmp_path / "s.db")) == 8


def test_plans_that_cannot_be_built_are_not_proposed() -> None:
    """Where `known` raises, nothing is proposed after the first trial, for which no space was known."""

    def fragile(params: dict[str, Any]) -> Sequence[float | None]:
        if params["kind"] == "b":
            raise RuntimeError("kernel larger than its input")
        return known(params)

    proposed = run(study_of(sampler_of(fragile)), 14, both)[1:]
    assert {params["kind"] for params in proposed} == {"a", "c"}


def test_limits_told_to_optuna_are_kept() -> None:
    """Where a limit on something unknown excludes the best kind, proposals come to keep it."""
    study = study_of(sampler_of())
    proposed = []
    for _ in range(24):
        trial = study.ask(SPACE)
        trial.set_constraint("memory", 1.0 if trial.params["kind"] == "b" else -1.0)
        proposed.append(trial.params["kind"])
        study.tell(trial, both(trial.params))
    assert proposed[-8:].count("b") <= 3


def test_a_finite_space_is_tried_to_its_end() -> None:
    """Every one of 6 plans is proposed before any repeats, and after that there is still an answer."""
    space: dict[str, BaseDistribution] = {"n": IntDistribution(1, 3), "k": CategoricalDistribution(("a", "b"))}
    study = study_of(FrontierSampler(lambda params: [None, params["n"]], settings=replace(QUICK, startup=2)))
    proposed = []
    for _ in range(9):
        trial = study.ask(space)
        proposed.append((trial.params["n"], trial.params["k"]))
        study.tell(trial, [trial.params["n"] / 10, trial.params["n"]])
    assert len(set(proposed[:6])) == 6


def test_running_trials_are_not_proposed_again() -> None:
    """Trials asked for before any is told are all different, also those far apart from the first ones."""
    study = study_of(sampler_of())
    run(study, 6, both)
    open_ones = [study.ask(SPACE) for _ in range(5)]
    assert len({tuple(trial.params.items()) for trial in open_ones}) == 5


def test_a_long_study_is_no_obstacle() -> None:
    """With 1,000 finished trials in a study there is a proposal, and it is new."""
    study = study_of(sampler_of())
    values = [{"x": n % 40 / 40, "y": n // 40 / 25, "kind": "abc"[n % 3]} for n in range(1000)]
    study.add_trials([create_trial(params=row, distributions=SPACE, values=list(both(row))) for row in values])
    assert study.ask(SPACE).params not in values


@pytest.mark.parametrize("known_values", [[1.0], [1.0, 2.0, 3.0]])
def test_a_wrong_number_of_values_is_refused(known_values: list[float]) -> None:
    """`known` answers for each objective; else the error says how many there are."""
    study = study_of(sampler_of(lambda _: known_values))
    with pytest.raises(ValueError, match="a value or None for each of 2 objectives"):
        run(study, 2, both)


@pytest.mark.parametrize("name", ["startup", "start_queries", "queries", "pool", "explore_every", "cooling"])
def test_settings_that_cannot_work_are_refused(name: str) -> None:
    """Each setting names its rule and the value."""
    with pytest.raises(ValueError, match=rf"frontier\.{name} needs to be at least \d+, got -1"):
        Frontier(**{name: -1})


SETTINGS = {"startup": 4, "start_queries": 20, "queries": 5, "pool": 60}


def foreseen(known_: Callable[[TrialPlan], Mapping[str, float]], cost: Callable[[TrialPlan], float]) -> Domain:
    """Return the toy domain with a foresight."""
    point = {"accuracy": 0.1, "latency_ms": 4.4}
    foresight = Foresight(objectives=OBJECTIVES, constraints=(LIMIT,), reference_point=point, known=known_, cost=cost)
    return replace(domain(), foresight=foresight)


def measured(plan: TrialPlan) -> Mapping[str, float]:
    """Return the toy's latency and size, which depend on its width."""
    width = float(str(plan.model["width"]))
    return {"latency_ms": width / 8, "size_kb": 2.0 * width}


def sit(
    path: Path,
    trials: int,
    run_trial: RunTrial = lambda _, plan, __: outcome_of(plan),
    space: Domain | None = None,
) -> None:
    """Search the toy problem with foresight, in a file that may hold a run already."""
    plan: SearchPlan = budget(trials, "frontier", **SETTINGS)
    with Ledger.open(path) if path.exists() else new_ledger(path) as ledger:
        search(replace(problem(run_trial), domain=space or foreseen(measured, lambda _: 1.0)), ledger, plan)


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the study of a run of ten trials."""
    path = tmp_path_factory.mktemp("ten") / "study.db"
    sit(path, 10)
    return path


def test_known_limits_are_kept(ten: Path) -> None:
    """A plan that breaks a limit on something known is not trained while there is another."""
    assert max(measured(plan)["size_kb"] for plan in plans_of(ten)[1:]) <= LIMIT.bound


def test_if_all_break_the_limits_the_search_goes_on(tmp_path: Path) -> None:
    """Without a plan that keeps the limits there are proposals all the same."""
    sit(tmp_path / "s.db", 8, space=foreseen(lambda plan: {**measured(plan), "size_kb": 1e6}, lambda _: 1.0))
    assert len(plans_of(tmp_path / "s.db")) == 8


def test_conditional_knobs_are_there_where_they_count(ten: Path) -> None:
    """A knob of one option is proposed with that option and not without; both options are tried."""
    trials = read_run(ten).trials[1:]
    having = [trial.plan.training.schedule.name == "step" for trial in trials]
    assert ["training.schedule.step.gamma" in trial.params for trial in trials] == having
    assert set(having) == {True, False}


def test_a_restart_changes_nothing(ten: Path, tmp_path: Path) -> None:
    """Interrupted in the middle of a trial, a search proposes what it would have proposed."""
    again = tmp_path / "again.db"
    count = iter(range(100))

    def interrupted(number: int, plan: TrialPlan, _: object) -> TrialOutcome:
        del number
        if next(count) == 7:
            interrupt()
        return outcome_of(plan)

    sit(again, 10, interrupted)
    sit(again, 10)
    assert plans_of(again) == plans_of(ten)


def test_cheap_plans_come_first(ten: Path, tmp_path: Path) -> None:
    """A schedule that costs a hundred times as much as the other one is proposed less often than if it did not."""

    def cost(plan: TrialPlan) -> float:
        return 100.0 if plan.training.schedule.name == "step" else 1.0

    sit(tmp_path / "s.db", 10, space=foreseen(measured, cost))
    dear, free = ([plan.training.schedule.name for plan in plans_of(path)] for path in (tmp_path / "s.db", ten))
    assert dear.count("step") < free.count("step")


def test_a_band_that_costs_ten_times_as_much_waits(ten: Path, tmp_path: Path) -> None:
    """Of the first trials none is in the slow half where that costs ten times as much; otherwise some are."""

    def widths(path: Path) -> list[float]:
        return [measured(plan)["latency_ms"] for plan in plans_of(path)[1 : 1 + SETTINGS["startup"]]]

    def cost(plan: TrialPlan) -> float:
        return 10.0 if measured(plan)["latency_ms"] > 1.0 else 1.0

    sit(tmp_path / "s.db", 1 + SETTINGS["startup"], space=foreseen(measured, cost))
    assert max(widths(tmp_path / "s.db")) <= 1.0 < max(widths(ten))


def test_all_but_failures_end_well(tmp_path: Path) -> None:
    """A search in which nothing but the reference finishes spends its budget all the same."""

    def failing(number: int, plan: TrialPlan, _: object) -> TrialOutcome:
        del plan
        return Failed(stage="train", reason="diverged") if number else finished(0.5, 4.0)

    sit(tmp_path / "s.db", 9, failing)
    assert len(plans_of(tmp_path / "s.db")) == 9


def test_the_reference_counts(tmp_path: Path) -> None:
    """Trial 0 has no knobs and is told as failed, yet its values are a point of the front."""
    sit(tmp_path / "s.db", 3)
    with closing_storage(open_storage(tmp_path / "s.db")) as storage:
        study = optuna.load_study(study_name=None, storage=storage)
        names = [objective.name for objective in OBJECTIVES]
        codes = Codes(domain().distributions())
        history = read_history(study, codes, names, 99, ours=True)
        row = codes.row({"model.width": 32, "training.lr": 0.03, "training.schedule": "constant"})
        placed = read_history(study, codes, names, 99, ours=True, reference=row)
    assert history.bare.tolist() == [[0.9, -4.0]]
    np.testing.assert_array_equal(placed.rows[0], row)
    assert (placed.gains[0].tolist(), len(placed.bare)) == ([0.9, -4.0], 0)
    assert row.tobytes() in placed.taken
    assert len(placed.rows) == len(placed.ended) == len(placed.violations) == len(history.rows) + 1
    assert len(history.rows) == 2


def test_it_is_a_part() -> None:
    """The shelf lists it and no module that it is made of."""
    assert "frontier" in plugins.names("samplers")
    assert plugins.settings_class("samplers", "frontier") is Frontier
