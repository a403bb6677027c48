"""Thinning: never more points than asked for, all where they are few, and each left out near one that is drawn."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_runs import finished, realistic_run, record, run_of

from beats_search.report.axes import whole_axis
from beats_search.report.figures import covered, hypervolume_figure, hypervolumes, pareto_figure
from beats_search.report.thinning import MOST_POINTS, apart
from beats_search.report.traces import Axes

POINTS = st.lists(st.tuples(st.floats(0.1, 100), st.floats(0.001, 1)), min_size=1, max_size=200)


def axes_of(points: list[tuple[float, float]]) -> Axes:
    """Return axes that show all points."""
    x, y = zip(*points, strict=True)
    return Axes(x=whole_axis("x", x), y=whole_axis("y", y), cost="x", merit="y")


@given(points=POINTS, most=st.integers(1, 50))
def test_at_most_so_many_are_kept_and_all_where_they_are_few(points: list[tuple[float, float]], most: int) -> None:
    """The indices rise, and nothing is left out where everything fits."""
    kept = apart(points, axes_of(points), most)
    assert 1 <= len(kept) <= most
    assert kept == sorted(set(kept))
    assert len(points) > most or kept == list(range(len(points)))


@given(points=POINTS)
def test_what_is_left_out_lies_by_one_that_is_kept(points: list[tuple[float, float]]) -> None:
    """Seen on the axes, no point is further from a kept one than a cell of the coarsest grid that holds so many."""
    axes = axes_of(points)
    kept = apart(points, axes, 100)

    def seen(index: int) -> tuple[float, float]:
        x, y = points[index]
        return axes.x.share(x), axes.y.share(y)

    places = [seen(index) for index in kept]
    nearest = [min(math.dist(seen(index), place) for place in places) for index in range(len(points))]
    assert max(nearest) <= math.sqrt(2) / 8


@given(x=st.floats(0.01, 100), wider=st.floats(1.01, 1e4))
def test_a_share_of_an_axis_is_0_and_1_at_its_ends(x: float, wider: float) -> None:
    """On either scale, and in the middle it is a half."""
    axis = whole_axis("x", [x, wider * x])
    assert axis.low is not None
    assert axis.high is not None
    middle = math.sqrt(axis.low * axis.high) if axis.log else (axis.low + axis.high) / 2
    assert [axis.share(at) for at in (axis.low, middle, axis.high)] == [
        pytest.approx(share, abs=1e-9) for share in (0, 0.5, 1)
    ]


def test_the_plot_of_very_many_trials_draws_some_and_says_so() -> None:
    """What is drawn and what is not are all dominated trials; the front is drawn whole."""
    run = realistic_run(trials=4_000)
    figure = pareto_figure(run)
    drawn, front = figure.data[0].customdata, figure.data[2].customdata
    finished_ = {trial.number for trial, _ in run.finished()} - {0}
    assert len(drawn) <= MOST_POINTS < len(finished_)
    assert len(drawn) + covered(run) + len(set(front) - {0}) == len(finished_)
    assert not set(drawn) & set(front)


def test_the_growth_of_very_many_trials_is_told_by_its_steps() -> None:
    """The line is the same: whoever reads it at a trial finds the hypervolume after it."""
    trials = [
        record(number, finished(0.5 + number % 700 / 2_000, 0.1 + number * 7 % 90 / 100)) for number in range(1_500)
    ]
    run = run_of(*trials)
    line = hypervolume_figure(run).data[0]
    steps = dict(zip(line.x, line.y, strict=True))
    assert len(steps) < 1_000
    value = math.nan
    for number, volume in enumerate(hypervolumes(run)):
        value = steps.get(number, value)
        assert value == volume
