"""Where a search begins: rings that spread plans, kin that share parts, and the training of what did best."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import optuna
import pytest
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from search_toy import REFERENCE, budget, finished, foreseeing, new_ledger, problem, space

from beats_search.records.objective import Constraint
from beats_search.records.outcome import Stopped, TrialOutcome
from beats_search.records.part import Scalar
from beats_search.records.plan import TrialPlan
from beats_search.search.frontier.codes import Codes
from beats_search.search.frontier.history import Ended, read_history
from beats_search.search.frontier.oracle import oracle_of
from beats_search.search.frontier.pool import apartness, kin
from beats_search.search.samplers.frontier import Frontier, FrontierSampler
from beats_search.search.storage import closing_storage, open_storage
from beats_search.search.study import search
from beats_search.space.fitting import values_in

Row: TypeAlias = NDArray[np.float64]

KNOBS: dict[str, BaseDistribution] = {
    "compression.0.bits": CategoricalDistribution((32, 8)),
    "compression.0.ratio": FloatDistribution(0.0, 0.75, step=0.25),
    "model.width": IntDistribution(8, 32, log=True),
    "training.lr": FloatDistribution(1e-3, 1.0, log=True),
    "training.schedule": CategoricalDistribution(("constant", "cosine")),
}
CODES = Codes(KNOBS)
HERE: Mapping[str, object] = {
    "compression.0.bits": 8,
    "compression.0.ratio": 0.5,
    "model.width": 16,
    "training.lr": 0.1,
    "training.schedule": "cosine",
}


def row(**changes: object) -> Row:
    """Return a row that differs from one by some values; double underscores are dots."""
    return CODES.row({**HERE, **{path.replace("__", "."): value for path, value in changes.items()}})


def apart(one: Row, other: Row) -> float:
    """Return the distance of two rows on their rings."""
    first, second = CODES.rings(np.stack([one, other]))
    return float(np.linalg.norm(first - second))


def test_the_ends_of_a_range_are_beside_one_another() -> None:
    """On its ring the low end is as near to the high end as to its own neighbour, and farthest from the middle."""
    low, high, middle = (row(training__lr=lr) for lr in (1e-3, 0.999, 10**-1.5))
    assert apart(low, high) < 0.01
    assert apart(low, middle) == pytest.approx(np.sqrt(2.0), abs=0.01)


def test_steps_are_evenly_around_their_ring() -> None:
    """Each of four steps is as far from the next as the last is from the first."""
    assert Codes({"x": FloatDistribution(0.1, 0.3, step=0.2)}).rings(np.array([[0.1], [0.3]])).std() > 0.1
    steps = [row(compression__0__ratio=ratio) for ratio in (0.0, 0.25, 0.5, 0.75)]
    gaps = [apart(one, other) for one, other in zip(steps, [*steps[1:], steps[0]], strict=True)]
    assert gaps == pytest.approx([gaps[0]] * 4)
    assert gaps[0] > 0.5


def test_an_unused_range_is_in_the_middle_of_its_ring() -> None:
    """It is equally far from all values."""
    unused = row()
    unused[CODES.names.index("training.lr")] = np.nan
    distances = [apart(unused, row(training__lr=lr)) for lr in (1e-3, 0.01, 0.1, 1.0)]
    assert distances == pytest.approx([distances[0]] * 4)


def test_who_goes_far_prefers_no_end() -> None:
    """Of settings that are each as far as can be from all before, as many as expected are near the ends."""
    line = Codes({"lr": FloatDistribution(0.0, 1.0)})
    rng = np.random.default_rng(0)
    chosen = line.random(rng, 1)
    while len(chosen) < 40:
        pool = line.random(rng, 50)
        distances = apartness(line.rings(pool), line.rings(chosen), rng)
        chosen = np.vstack([chosen, pool[distances.argmax()]])
    assert 4 <= ((chosen < 0.1) | (chosen > 0.9)).sum() <= 12


def test_kin_differ_in_one_part() -> None:
    """A relative has all knobs of a centre but those of one part, and every part has its turn."""
    assert [[CODES.names[column] for column in part] for part in CODES.parts] == [
        ["compression.0.bits", "compression.0.ratio"],
        ["model.width"],
        ["training.lr", "training.schedule"],
    ]
    found = kin(CODES, row()[None], np.random.default_rng(0), 200)
    changed = found != row()
    heads = [{CODES.names[column].split(".")[0] for column in np.flatnonzero(line)} for line in changed]
    assert max(map(len, heads)) == 1
    assert set().union(*heads) == {"compression", "model", "training"}


def test_knobs_that_a_centre_lacks_are_random_in_its_kin() -> None:
    """The reference has no compression: its relatives have any."""
    centre = row()
    centre[list(CODES.parts[0])] = np.nan
    found = kin(CODES, centre[None], np.random.default_rng(0), 100)
    assert not np.isnan(found).any()
    assert len(np.unique(found[:, CODES.parts[0]], axis=0)) == 8


def test_a_study_without_parts_has_no_kin() -> None:
    """Where every knob stands alone, its neighbours are all there is to gain."""
    alone = Codes({"x": FloatDistribution(0.0, 1.0), "y": FloatDistribution(0.0, 1.0)})
    assert kin(alone, np.zeros((1, 2)), np.random.default_rng(0)).shape == (0, 2)
    assert kin(CODES, np.empty((0, 5)), np.random.default_rng(0)).shape == (0, 5)


def test_the_reference_has_values_for_the_parts_that_fit() -> None:
    """A plan without compression gives values for the rest, and one of another model none for that."""
    own = replace(
        REFERENCE,
        model=replace(REFERENCE.model, settings=(("width", 32),)),
        training=replace(REFERENCE.training, lr=0.03),
    )
    assert values_in(space(), own) == {"model.width": 32, "training.lr": 0.03, "training.schedule": "constant"}
    assert "model.width" not in values_in(space(), replace(own, model=replace(own.model, settings=(("width", 9),))))


def test_only_what_is_known_decides_a_limit_before_training() -> None:
    """Every other limit is learned, one on an objective too."""
    limits = (
        Constraint(name="accuracy", sign=">=", bound=0.9),
        Constraint(name="energy_mj", sign="<=", bound=1.0),
        Constraint(name="latency_ms", sign="<=", bound=1.0),
    )
    oracle = oracle_of(foreseeing(USUAL, limits), ("accuracy", "latency_ms"))
    assert oracle.decided(frozenset({"latency_ms"})) == {"latency_ms <= 1"}
    assert oracle.decided(frozenset()) == frozenset()


USUAL: Mapping[str, Scalar] = {
    "model.width": 32,
    "training.lr": 0.0123,
    "training.schedule": "constant",
    "compression.0.ratio": 0.5,
}


def started(path: Path, best: float, seed: int = 0) -> list[tuple[bool, bool]]:
    """Tell of the first five trials whether they have the rate, and the width, of what did best."""
    plans: list[TrialPlan] = []

    def run_trial(number: int, plan: TrialPlan, _: object) -> TrialOutcome:
        if number:
            plans.append(plan)
        return finished(0.5 if number == 0 else best - 0.01 * number, 4.0)

    settings = {"startup": 7, "start_queries": 6, "queries": 3, "pool": 60}
    with new_ledger(path, seed) as ledger:
        search(replace(problem(run_trial), domain=foreseeing(USUAL)), ledger, budget(6, "frontier", **settings))
    first = plans[0]
    lr, width = (first.training.lr, first.model["width"]) if best > 0.6 else (USUAL["training.lr"], 32)
    return [(plan.training.lr == lr, plan.model["width"] == width) for plan in plans]


@pytest.mark.parametrize("best", [0.2, 0.9])
def test_the_start_differs_from_the_best_in_one_part(best: float, tmp_path: Path) -> None:
    """Every second plan has the rate or the width of the reference, or of a trial that did better."""
    runs = [started(tmp_path / f"{seed}.db", best, seed) for seed in range(3)]
    assert all(any(found[index]) for found in runs for index in (0, 2, 4))
    assert sum(not any(same) for found in runs for same in found) >= len(runs)


def test_what_was_expected_of_a_stopped_trial_is_read_back(tmp_path: Path) -> None:
    """It is a gain in accuracy alone; trials that finished, and the other objectives, have none."""

    def run_trial(number: int, _: TrialPlan, __: object) -> TrialOutcome:
        stopped = Stopped(epoch=1, reason="hopeless", curve=(), expected=0.3)
        return stopped if number % 2 else finished(0.9, 4.0)

    path = tmp_path / "s.db"
    with new_ledger(path) as ledger:
        search(replace(problem(run_trial), domain=foreseeing(USUAL)), ledger, budget(5))
    with closing_storage(open_storage(path)) as storage:
        study = optuna.load_study(study_name=None, storage=storage)
        history = read_history(
            study, Codes(foreseeing(USUAL).distributions()), ("accuracy", "latency_ms"), 99, ours=True
        )
    stopped = history.where(Ended.STOPPED)
    assert stopped.sum() == 2
    np.testing.assert_array_equal(history.expected[:, 0], np.where(stopped, 0.3, np.nan))
    assert np.isnan(history.expected[:, 1]).all()


def asked_by(
    trials: int, settings: Frontier, seed: int = 0
) -> list[tuple[list[Mapping[str, object]], list[Mapping[str, object]]]]:
    """Return for each of so many proposals the plans tried before it, and those whose latency it asked for."""
    asked: list[Mapping[str, object]] = []

    def known(params: Mapping[str, object]) -> list[float | None]:
        asked.append(dict(params))
        left = (1.0 - float(str(params[f"compression.{layer}.ratio"])) for layer in (0, 1))
        return [None, float(str(params["model.width"])) * sum(left)]

    sampler = FrontierSampler(known, seed=seed, decides=lambda name: not name.startswith("training"), settings=settings)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    found = []
    for _ in range(trials):
        tried: list[Mapping[str, object]] = [trial.params for trial in study.get_trials(deepcopy=False)]
        asked.clear()
        trial = study.ask({**KNOBS, "compression.1.ratio": FloatDistribution(0.0, 0.75)})
        found.append((tried, list(asked)))
        width, lr = trial.params["model.width"], trial.params["training.lr"]
        study.tell(trial, [width / 40 - abs(np.log10(lr) + 1.5) / 3, known(trial.params)[1] or 0.0])
    return found


def trained_alike(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Tell whether two plans train in the same way; rates are drawn from a continuum."""
    return one["training.lr"] == other["training.lr"] and one["training.schedule"] == other["training.schedule"]


def test_at_first_latencies_of_plans_that_share_a_training_are_asked() -> None:
    """Every proposal of the start asks for relatives of what was tried, for these cost little to try."""
    for tried, asked in asked_by(6, Frontier(startup=6, start_queries=20, queries=10))[2:]:
        alike = [plan for plan in asked if any(trained_alike(plan, before) for before in tried)]
        assert len(alike) >= 5


def test_plans_of_the_same_training_with_another_compression_stay_in_sight() -> None:
    """Later proposals ask for plans that differ from a tried one in several knobs of one part, and in no other.

    Here trainings cost alike, so that without a belief in some of them nothing speaks against any.
    """
    settings = Frontier(startup=2, start_queries=1, queries=10, explore_every=100, belief=0)
    later = [proposal for seed in range(4) for proposal in asked_by(14, settings, seed)[6:]]
    apart = [
        plan
        for tried, asked in later
        for plan in asked
        if any(
            trained_alike(plan, before)
            and plan["model.width"] == before["model.width"]
            and all(plan[name] != before[name] for name in ("compression.0.ratio", "compression.1.ratio"))
            for before in tried
        )
    ]
    assert apart
