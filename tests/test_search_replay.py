"""Replay: samplers compared on a table of finished trials."""

import math
from dataclasses import replace

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial
from search_toy import LIMIT, OBJECTIVES, REFERENCE, domain, finished

from beats_search import plugins
from beats_search.pareto import hypervolume_of_run
from beats_search.records.errors import CommandError
from beats_search.records.outcome import Failed, Finished
from beats_search.records.part import Part
from beats_search.records.plan import TrialPlan
from beats_search.records.run import RunRecord, TrialRecord
from beats_search.search.domain import Params
from beats_search.search.replay import _course, _foresight, distance, replay
from beats_search.search.samplers.grid import Grid, _shuffled
from beats_search.search.samplers.nsga2 import _Crossover
from beats_search.space.draw import Replay

POINTS = 3
"""Three learning rates make a table of 36 plans."""

QUICK = {"tpe": {"startup": 4}, "nsga2": {"population": 4}}


def outcome_of(plan: TrialPlan) -> Finished:
    """Return values that depend on the plan alone: wide is accurate and slow, and a small learning rate is better."""
    width = float(str(plan.model["width"]))
    gamma = float(str(dict(plan.training.schedule.settings).get("gamma", 0.0)))
    return finished(0.1 + width / 100 + gamma / 10 - math.log10(plan.training.lr) / 10, width / 8, size_kb=2.0 * width)


def run() -> RunRecord:
    """Return a run of the reference and the whole grid."""
    points = list(domain().grid(POINTS))
    records = [
        TrialRecord(number=number, params=params, plan=plan, outcome=outcome_of(plan), began_s=0.0, seconds=1.0)
        for number, params in enumerate(points, start=1)
        for plan in [domain().draw(Replay(params))]
    ]
    reference = TrialRecord(number=0, params={}, plan=REFERENCE, outcome=finished(0.6, 4.0), began_s=0.0, seconds=1.0)
    return RunRecord(
        name="toy",
        sampler="grid",
        seed=0,
        objectives=OBJECTIVES,
        constraints=(LIMIT,),
        reference_point={"accuracy": 0.1, "latency_ms": 4.4},
        trials=(reference, *records),
        duplicates=0,
        environment={},
        classes=("a", "b"),
        input_shape=(1, 2, 2),
    )


@pytest.mark.parametrize("sampler", [name for name in plugins.names("samplers") if name != "gp"])
def test_a_course_leads_from_the_reference_to_the_whole(sampler: str) -> None:
    """Shares grow from the reference's to all of it, and a course has a step for every trial."""
    part = plugins.make("samplers", Part(name=sampler, settings=tuple(QUICK.get(sampler, {}).items())))
    course = _course(run(), domain(), part, 0)
    alone = hypervolume_of_run(replace(run(), trials=run().trials[:1])) / hypervolume_of_run(run())
    assert len(course) == 1 + 36
    assert course == sorted(course)
    assert course[0] == pytest.approx(alone)
    assert course[-1] == pytest.approx(1.0)


def test_a_proposal_in_the_table_is_answered_by_itself() -> None:
    """A sampler that walks the table takes its trials in its own order: the course is that of the prefixes."""
    order = [dict(params) for params in _shuffled(domain(), POINTS, 5)]
    by_params = {repr(sorted(record.params.items())): record for record in run().trials}
    walked = [run().trials[0], *(by_params[repr(sorted(params.items()))] for params in order)]
    prefixes = [replace(run(), trials=tuple(walked[: count + 1])) for count in range(len(walked))]
    expected = [hypervolume_of_run(prefix) / hypervolume_of_run(run()) for prefix in prefixes]
    assert _course(run(), domain(), Grid(points=POINTS), 5) == pytest.approx(expected)


def test_a_row_is_the_median_over_seeds() -> None:
    """Shares and counts in a row are medians of the courses of seeds 0, 1, 2."""
    (row,) = replay(run(), domain(), [Part(name="random_search")], seeds=3)
    part = plugins.make("samplers", Part(name="random_search"))
    courses = [_course(run(), domain(), part, seed) for seed in range(3)]
    firsts = [next(count for count, share in enumerate(course) if share >= 0.9) for course in courses]
    assert (row.sampler, row.seeds, row.trials) == ("random_search", 3, 36)
    assert row.share_at_25 == sorted(course[9] for course in courses)[1]
    assert row.share_at_75 == sorted(course[27] for course in courses)[1]
    assert row.trials_to_90 == sorted(firsts)[1]
    assert row.trials_to_90 <= row.trials_to_95


def test_a_sampler_without_further_proposals_stays_where_it_is() -> None:
    """A grid of the middles ends before the front is found; what it never reaches takes infinitely long."""
    (row,) = replay(run(), domain(), [Part(name="grid", settings=(("points", 1),))], seeds=1)
    assert row.share_at_50 == row.share_at_75 < 0.95
    assert row.trials_to_95 == math.inf


def test_nsga2_has_generations_in_a_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a sampler notes on a trial is kept with the answer, so that NSGA-II gets beyond its random start."""
    children = 0
    cross = _Crossover.__call__

    def counted(
        self: _Crossover, study: optuna.Study, space: dict[str, BaseDistribution], parents: list[FrozenTrial]
    ) -> dict[str, object]:
        nonlocal children
        children += 1
        return cross(self, study, space, parents)

    monkeypatch.setattr(_Crossover, "__call__", counted)
    part = Part(name="nsga2", settings=(("population", 6),))
    replay(run(), domain(), [part], seeds=1)
    assert children == 36 - 6


@given(st.integers(1, 36))
def test_what_the_table_knows_before_training_is_told(number: int) -> None:
    """A plan of the table has its own trial's latency and size, but never its accuracy."""
    trial = run().trials[number]
    known = _foresight(run()).known(trial.plan)
    assert isinstance(trial.outcome, Finished)
    assert known == {name: trial.outcome.value(name) for name in ("latency_ms", "size_kb")}


def test_a_plan_beside_the_table_has_the_latency_of_the_most_similar() -> None:
    """A width of 15 between those of 8, 16 and 32 is as fast as 16."""
    trial = next(record for record in run().trials[1:] if record.plan.model["width"] == 16)
    assert isinstance(trial.outcome, Finished)
    beside = replace(trial.plan, model=Part(name="toy", settings=(("width", 15),)))
    assert _foresight(run()).known(beside)["latency_ms"] == trial.outcome.latency.median_ms


@given(st.integers(0, 35), st.integers(0, 35))
def test_distance_tells_plans_apart(one: int, other: int) -> None:
    """It is the same both ways, and 0 exactly between a plan and itself."""
    points = list(domain().grid(POINTS))
    here, there = points[one], points[other]
    assert distance(domain(), here, there) == distance(domain(), there, here)
    assert (distance(domain(), here, there) == 0) == (one == other)


def test_a_knob_that_one_plan_lacks_counts_in_full() -> None:
    """Constant against step with a gamma: one for the choice, one for the gamma."""
    constant: Params = {"model.width": 8, "training.schedule": "constant"}
    step: Params = {"model.width": 8, "training.schedule": "step", "training.schedule.step.gamma": 0.3}
    assert distance(domain(), constant, step) == 2


def test_a_run_that_tells_nothing_is_refused() -> None:
    """Too few finished trials, or none better than the reference point: the error says so."""
    few = replace(run(), trials=run().trials[:4])
    failed = [replace(trial, outcome=Failed(stage="train", reason="")) for trial in run().trials[1:]]
    with pytest.raises(CommandError, match=r"at least 4 finished trials.* toy has 3"):
        replay(few, domain(), [])
    with pytest.raises(CommandError, match="toy has 0"):
        replay(replace(run(), trials=(run().trials[0], *failed)), domain(), [])
    with pytest.raises(CommandError, match="nothing to compare"):
        replay(replace(run(), reference_point={"accuracy": 0.99, "latency_ms": 0.1}), domain(), [])
