"""The forecast: against another way to compute it, against a known law, and what it must never do."""

import math
import random
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from stopping_toy import EPOCHS, IMAGES, drawn, grown, plan

from beats_search.search.forecast import Forecast, Reading, _columns, _fit, _predict, _settings, forecast, log_odds

SHARES = st.integers(0, IMAGES).map(lambda count: count / IMAGES)


@lru_cache
def seen(count: int, epoch: int, seed: int) -> list[tuple[Reading, float]]:
    """Return readings of random plans after an epoch, with what they ended as."""
    chance = random.Random(seed)
    plans = [drawn(chance) for _ in range(count)]
    ended = [grown(of, f"{seed}/{number}") for number, of in enumerate(plans)]
    return [
        (Reading(plan=of, epoch=epoch, accuracy=outcome.curve[epoch - 1].accuracy), outcome.accuracy)
        for of, outcome in zip(plans, ended, strict=True)
    ]


def same(readings: list[tuple[float, float]], epoch: int = 1) -> list[tuple[Reading, float]]:
    """Return readings of one plan."""
    return [(Reading(plan=plan(), epoch=epoch, accuracy=one), final) for one, final in readings]


def test_regression_is_the_conditional_of_a_multivariate_t() -> None:
    """Weights that are integrated out leave a kernel, and conditioning on what was seen gives the same forecast."""
    chance = np.random.default_rng(0)
    design, targets = chance.normal(size=(13, 4)), chance.normal(size=12)
    expected, variances = np.array([0.5, 1.0, 2.0, 0.0]), np.array([9.0, 1.0, 4.0, 0.1])
    found = _predict(_fit(design[:-1], targets, expected, variances), design[-1], room=1.0, images=IMAGES)

    kernel = design @ np.diag(variances) @ design.T + np.eye(13)
    surprise = targets - design[:-1] @ expected
    solved = np.linalg.solve(kernel[:-1, :-1], np.column_stack([surprise, kernel[:-1, -1]]))
    noise = (4 * 0.5**2 + surprise @ solved[:, 0]) / (4 + 12)
    assert found.degrees == 16
    assert found.mean == pytest.approx(design[-1] @ expected + kernel[-1, :-1] @ solved[:, 0])
    assert found.variance == pytest.approx(noise * (kernel[-1, -1] - kernel[-1, :-1] @ solved[:, 1]))


def test_without_trials_the_prior_speaks() -> None:
    """The final file is expected to read as the model does now, plus a gain in proportion to what is left."""
    means = [forecast([], Reading(plan=plan(), epoch=epoch, accuracy=0.8), IMAGES).mean for epoch in (4, 12, 16)]
    gains = [mean - log_odds(0.8, IMAGES) for mean in means]
    assert gains == pytest.approx([1.5, 0.5, 0.0])


@pytest.mark.parametrize("epoch", [1, 4, EPOCHS])
def test_intervals_hold_what_they_say(epoch: int) -> None:
    """Of trials that follow the known law, 90 % end within the 90 % interval, to three binomial deviations."""
    inside = count = 0
    for seed in range(4):
        *known, last = [seen(90, epoch, seed)[start : start + 60] for start in (0, 60)]
        for reading, final in last:
            low, high = forecast(known[0], reading, IMAGES).interval(0.9)
            inside, count = inside + (low <= final <= high), count + 1
    assert abs(inside / count - 0.9) <= 3 * math.sqrt(0.9 * 0.1 / count)


def test_probability_is_that_of_the_student_t() -> None:
    """Where a better reading only helps, it is the upper tail above the bar and half an image."""
    found = forecast(seen(40, 4, 0), Reading(plan=plan(), epoch=4, accuracy=0.8), IMAGES)
    distance = (log_odds(0.9005, IMAGES) - found.mean) / math.sqrt(found.variance)
    assert found.probability_above(0.9) == pytest.approx(stats.t.sf(distance, found.degrees))


@given(st.integers(0, 5), st.tuples(SHARES, SHARES).map(sorted), SHARES)
def test_a_better_reading_never_lowers_the_probability(seed: int, readings: list[float], bar: float) -> None:
    """A trial that reads better is at least as likely to end above a bar, also far from all that was seen."""
    known = seen(10, 2, seed)
    worse, better = (
        forecast(known, Reading(plan=plan(), epoch=2, accuracy=one), IMAGES).probability_above(bar) for one in readings
    )
    assert worse <= better + 1e-12


@given(st.integers(0, 5), SHARES, st.tuples(SHARES, SHARES).map(sorted))
def test_a_higher_bar_never_raises_the_probability(seed: int, reading: float, bars: list[float]) -> None:
    """The probability to exceed a bar falls with the bar."""
    found = forecast(seen(10, 2, seed), Reading(plan=plan(), epoch=2, accuracy=reading), IMAGES)
    assert found.probability_above(bars[0]) >= found.probability_above(bars[1])


@given(
    st.floats(-3, 3), st.floats(0.01, 2), st.floats(-0.99, 0.99), st.floats(0.01, 2), st.floats(-2, 2), st.floats(0, 8)
)
def test_the_least_of_all_higher_readings_counts(
    mean: float, variance: float, correlation: float, curvature: float, slope: float, room: float
) -> None:
    """The closed form finds the least probability on a fine grid of higher readings."""
    covariance = correlation * math.sqrt(variance * curvature)
    found = Forecast(
        mean=mean, slope=slope, variance=variance, covariance=covariance,
        curvature=curvature, room=room, degrees=10, images=IMAGES,
    )  # fmt: skip
    higher = np.linspace(0, room, 2001)
    scale = np.sqrt(variance + 2 * covariance * higher + curvature * higher**2)
    grid = stats.t.sf((log_odds(0.8005, IMAGES) - mean - slope * higher) / scale, 10).min()
    assert found.probability_above(0.8) <= grid + 1e-9
    assert found.probability_above(0.8) == pytest.approx(grid, abs=1e-3)


def test_nothing_exceeds_all_images() -> None:
    """A bar of 1 cannot be exceeded, whatever is read."""
    assert forecast([], Reading(plan=plan(), epoch=1, accuracy=1.0), IMAGES).probability_above(1.0) == 0


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_all_or_nothing_is_a_number(accuracy: float) -> None:
    """Readings and ends of 0 and 1 count as half an image from there."""
    found = forecast(same([(0.0, 1.0), (1.0, 0.0)]), Reading(plan=plan(), epoch=1, accuracy=accuracy), IMAGES)
    assert math.isfinite(found.mean)
    assert found.variance > 0


def test_what_compression_costs_is_learned() -> None:
    """Where 4 bits cost accuracy, a plan with 4 bits is expected to end lower than the same with 32."""
    known = seen(40, 8, 0)
    wide, narrow = (
        forecast(known, Reading(plan=plan(bits=bits), epoch=8, accuracy=0.9), IMAGES).mean for bits in (32, 4)
    )
    assert narrow < wide - 0.25


def test_what_was_never_tried_is_less_certain() -> None:
    """The forecast for a setting that no trial had is wider than for one that many had."""
    known = seen(40, 8, 0)
    tried, untried = (forecast(known, Reading(plan=plan(bits=bits), epoch=8, accuracy=0.9), IMAGES) for bits in (4, 2))
    assert untried.variance > tried.variance


def test_trials_make_it_more_certain() -> None:
    """The more trials kept to the law, the narrower the forecast."""
    reading = Reading(plan=plan(), epoch=8, accuracy=0.9)
    few, many = (forecast(seen(count, 8, 0), reading, IMAGES) for count in (8, 80))
    assert many.variance < few.variance


def test_settings_are_found_by_their_names() -> None:
    """Every setting of every part has a path that tells which part it belongs to."""
    found = _settings(plan(width=16, ratio=0.25, bits=4))
    assert found[".model.toy.width"] == 16
    assert found[".compression.0.channel_pruning.ratio"] == 0.25
    assert found[".compression.1.quantization.bits"] == 4
    assert found[".training.accumulation.window"] == 1


def test_columns_are_what_differs() -> None:
    """A number is standardized, on a logarithmic scale where it spans a decade; few values have a column each."""
    spread = _columns([{"lr": lr, "fixed": 1} for lr in (0.01, 0.1, 1.0)])
    assert spread.shape == (3, 4)
    assert spread[:, 0] == pytest.approx([-math.sqrt(1.5), 0, math.sqrt(1.5)])
    assert spread[:, 1:].tolist() == np.eye(3).tolist()
    assert _columns([{"lr": lr / 10} for lr in range(1, 9)]).shape == (8, 1)
    assert _columns([{"kind": "a"}, {"kind": True}, {}]).shape == (3, 3)
    assert _columns([{"ratio": 0.5}, {}]).tolist() == [[0, 1, 0], [0, 0, 1]]
    assert _columns([{"ratio": 0.5}, {"ratio": 0.5}]).shape == (2, 0)
