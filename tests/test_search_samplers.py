"""Every file on the shelf of samplers: budgets, seeds, conditions, silence; then what is special to one."""

import math
import random
from pathlib import Path
from statistics import mean

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from search_toy import Trials, budget, domain, finished, interrupt, new_ledger, plans_of, problem, sit

from beats_search import plugins
from beats_search.records.errors import CommandError
from beats_search.records.outcome import Failed, Finished, Stopped, TrialOutcome
from beats_search.records.plan import TrialPlan
from beats_search.records.search_plan import SearchPlan
from beats_search.search.domain import Domain, difference, distribution, value_at
from beats_search.search.ledger import Ledger
from beats_search.search.proposal import Given, SamplerPart
from beats_search.search.reading import read_run
from beats_search.search.samplers.grid import Grid
from beats_search.search.samplers.nsga2 import _Crossover
from beats_search.search.samplers.sobol import Sobol
from beats_search.search.sitting import Ending
from beats_search.search.study import search
from beats_search.space.draw import fits
from beats_search.space.knobs import Choice, Leaf, Range

SAMPLERS = plugins.names("samplers")
QUICK = {"tpe": {"startup": 4}, "gp": {"startup": 4}, "nsga2": {"population": 4}}
LEARNING = sorted(QUICK)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a study may be."""
    return tmp_path / "study.db"


def quick(sampler: str, trials: int) -> SearchPlan:
    """Return a budget for a sampler that begins to learn early."""
    return budget(trials, sampler, **QUICK.get(sampler, {}))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_spends_its_budget_in_silence(
    path: Path, sampler: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Through outcomes of all kinds, conditional knobs and choices of one: no word and no warning."""
    ending, _ = sit(path, quick(sampler, 10))
    assert ending is Ending.TRIALS
    assert len(plans_of(path)) == 10
    assert {plan.training.schedule.name for plan in plans_of(path)} == {"constant", "step"}
    assert (*capfd.readouterr(), caplog.text) == ("", "", "")


def test_the_toy_run_has_trials_of_every_kind(path: Path) -> None:
    """The conformance suite means what it says: its runs hold every outcome, and trials beyond the limit."""
    sit(path, quick("random_search", 20))
    run = read_run(path)
    assert {type(trial.outcome) for trial in run.trials} == {Finished, Stopped, Failed}
    assert not all(run.constraints[0].holds(outcome) for _, outcome in run.finished())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_finite_space_is_searched_to_its_end(path: Path, sampler: str) -> None:
    """With more budget than plans the search tries each of the 12 once and ends by itself."""
    trials = Trials()
    ending, _ = sit(path, quick(sampler, 500), trials, continuous=False)
    assert ending is Ending.EXHAUSTED
    assert len({plan.fingerprint() for plan in trials.plans}) == len(trials.plans) == 1 + 12


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_seed_decides_the_plans(tmp_path: Path, sampler: str) -> None:
    """The same seed gives the same plans, also when Ctrl-C and a restart lie in between; another seed gives others."""
    once, again, other = (tmp_path / name for name in ("once.db", "again.db", "other.db"))
    sit(once, quick(sampler, 8))
    sit(again, quick(sampler, 8), Trials({6: interrupt}))
    sit(again, quick(sampler, 8))
    sit(other, quick(sampler, 3), seed=1)
    assert plans_of(once) == plans_of(again)
    assert plans_of(once)[1:3] != plans_of(other)[1:3]


@pytest.mark.parametrize("sampler", LEARNING)
def test_a_model_covers_every_knob(path: Path, sampler: str) -> None:
    """Neither the reference, which has no knobs, nor conditions keep a knob out of what the sampler models."""
    sit(path, quick(sampler, 9))
    with Ledger.open(path) as ledger:
        later = plugins.make("samplers", quick(sampler, 1).sampler).make(0, 99, domain())
        trial = ledger.ask(later)
        assert trial.relative_params
        assert trial.relative_search_space == domain().distributions()


@pytest.mark.parametrize("sampler", ["nsga2", "tpe"])
def test_a_sampler_learns(path: Path, sampler: str) -> None:
    """Where smaller learning rates are better, later proposals are well below the middle (0.03) of their range."""

    def smaller_is_better(number: int, plan: TrialPlan, _: object) -> Finished:
        del number
        return finished(0.5 - math.log10(plan.training.lr) / 10, 1.0)

    with new_ledger(path) as ledger:
        search(problem(smaller_is_better), ledger, quick(sampler, 26))
    later = [math.log10(plan.training.lr) for plan in plans_of(path)[13:]]
    assert 10 ** mean(later) < 0.016


def test_gp_does_not_return_to_what_failed(path: Path) -> None:
    """Where large learning rates fail, the model comes to avoid them; left out, they would attract it for ever."""

    def mostly_fails(number: int, plan: TrialPlan, _: object) -> TrialOutcome:
        if number and plan.training.lr > 0.02:
            return Failed(stage="train", reason="diverged")
        return finished(0.5 + plan.training.lr, 1.0)

    with new_ledger(path) as ledger:
        search(problem(mostly_fails), ledger, quick("gp", 16))
    assert read_run(path).duplicates <= 3
    assert max(plan.training.lr for plan in plans_of(path)[-5:]) < 0.5


def test_sobol_fills_the_space_evenly() -> None:
    """Of the first 16 points, each quarter of every range holds four (the sequence is a (0, m, 1)-net in each knob)."""
    ranges = tuple(Range(path=f"x{index}", low=0.0, high=4.0) for index in range(5))
    free = Domain(knobs=ranges, draw=domain().draw, grid=lambda _: (), count=None)
    points = [_params(Sobol(), 7, number, free) for number in range(16)]
    for knob in ranges:
        quarters = [int(float(str(point[knob.path]))) for point in points]
        assert [quarters.count(quarter) for quarter in range(4)] == [4, 4, 4, 4]


def test_a_grid_holds_every_plan_once() -> None:
    """All proposals together are the grid, in an order of the seed, and then there are no more."""
    space = domain()
    expected = sorted(map(repr, (sorted(point.items()) for point in space.grid(3))))
    orders = [[repr(sorted(_params(Grid(points=3), seed, n, space).items())) for n in range(36)] for seed in (0, 1)]
    assert [sorted(order) for order in orders] == [expected, expected]
    assert orders[0] != orders[1]
    assert Grid(points=3).make(0, 36, space) is None


def test_a_grid_cut_short_is_spread_out() -> None:
    """The first half of a grid has every option of every choice."""
    first = [_params(Grid(points=3), 0, number, domain()) for number in range(18)]
    assert {point["model.width"] for point in first} == {8, 16, 32}
    assert {point["training.schedule"] for point in first} == {"constant", "step"}


def test_a_grid_beyond_all_budgets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """More points than anyone could try are an error that names a way out, not hours of shuffling."""
    monkeypatch.setattr("beats_search.search.samplers.grid._MOST", 50)
    with pytest.raises(CommandError, match=r"more than 50 plans; .* sobol"):
        Grid(points=40).make(0, 0, domain())


def _params(part: SamplerPart, seed: int, number: int, space: Domain) -> dict[str, object]:
    sampler = part.make(seed, number, space)
    assert isinstance(sampler, Given)
    return dict(sampler._params)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("tpe", {"startup": 0}),
        ("gp", {"startup": 0}),
        ("nsga2", {"population": 1}),
        ("grid", {"points": 0}),
        ("grid", {"points": 9999}),
    ],
)
def test_settings_that_cannot_work_are_refused(name: str, settings: dict[str, int]) -> None:
    """Each setting names its rule and the value."""
    with pytest.raises(ValueError, match=rf"{name}\.{next(iter(settings))} needs to be at least .*, got"):
        plugins.settings_class("samplers", name)(**settings)


def _parent(accuracy: float, violation: float = 0.0, **params: float) -> FrozenTrial:
    return create_trial(
        params=params,
        distributions={name: FloatDistribution(0.0, 100.0) for name in params},
        values=[accuracy],
        constraints={"limit": violation},
        state=TrialState.COMPLETE,
    )


def test_a_child_has_the_genes_of_its_parents() -> None:
    """Every value of a child is one of a parent's, also of a knob that only one of them has."""
    parents = [_parent(0.5, a=1.0, b=2.0), _parent(0.5, a=3.0, c=4.0)]
    genes = {"a": {1.0, 3.0}, "b": {2.0}, "c": {4.0}}
    study = optuna.create_study(direction="maximize")
    paths: dict[str, FloatDistribution] = {name: FloatDistribution(0.0, 100.0) for name in genes}
    children = [_Crossover(random.Random(seed))(study, dict(paths), parents) for seed in range(60)]
    assert all(child[name] in genes[name] for child in children for name in child)
    assert {name: {child[name] for child in children if name in child} for name in genes} == genes


def test_parents_that_keep_the_limits_win() -> None:
    """In a tournament a plan within its limits beats a better one that breaks them."""
    good, bad = _parent(0.1, 0.0, a=1.0), _parent(0.9, 5.0, a=2.0)
    study = optuna.create_study(direction="maximize")
    paths: dict[str, FloatDistribution] = {"a": FloatDistribution(0.0, 100.0), "b": FloatDistribution(0.0, 1.0)}
    children = [_Crossover(random.Random(seed))(study, dict(paths), [good, bad]) for seed in range(200)]
    values = [child["a"] for child in children if "a" in child]
    assert values.count(1.0) > 2 * values.count(2.0)


KNOBS = (
    Range(path="x", low=0.001, high=1.0, log=True),
    Range(path="x", low=-2.0, high=3.0),
    Range(path="x", low=0.0, high=0.9, step=0.1),
    Range(path="x", low=1, high=9, integer=True),
    Range(path="x", low=8, high=64, step=8, integer=True),
    Range(path="x", low=1, high=100, log=True, integer=True),
    Choice(path="x", labels=("a", 2, None), options=(Leaf(value="a"), Leaf(value=2), Leaf(value=None))),
)


@given(st.sampled_from(KNOBS), st.floats(0, 1, exclude_max=True))
def test_any_share_of_a_knob_is_a_value_it_allows(knob: Range | Choice, share: float) -> None:
    """The point on a knob's line is one of its values, for the space and for Optuna."""
    value = value_at(knob, share)
    assert fits(knob, value)
    assert distribution(knob)._contains(distribution(knob).to_internal_repr(value))


@given(st.sampled_from(KNOBS), st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_difference_is_a_distance(knob: Range | Choice, one: float, other: float) -> None:
    """It is 0 exactly for equal values, the same both ways, and at most 1."""
    here, there = value_at(knob, one), value_at(knob, other)
    apart = difference(knob, here, there)
    assert apart == difference(knob, there, here)
    assert 0 <= apart <= 1 + 1e-12
    assert (apart == 0) == (here == there)


def test_a_path_means_one_thing() -> None:
    """Two knobs under one path could not be stored, so there is no such domain."""
    one, other = Range(path="x", low=0.0, high=1.0), Range(path="x", low=0.0, high=2.0)
    with pytest.raises(ValueError, match="a path of its own, got x twice"):
        Domain(knobs=(one, other), draw=domain().draw, grid=lambda _: (), count=None)
