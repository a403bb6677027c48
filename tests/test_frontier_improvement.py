"""Improvement: closed forms against brute force and Monte Carlo, bounds, bars, tails."""

import moocore
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from beats_search.search.clipping import Clip
from beats_search.search.frontier.knowledge import Trained
from beats_search.search.frontier.outlook import Outlook
from beats_search.search.improvement import (
    Array,
    bar,
    bound,
    expected,
    front_of,
    improvement,
    log_expected,
    mean_below,
    steps,
)

IDLE = Clip(middle=-1.0, unit=1.0)
SEEDS = st.integers(0, 2**32 - 1)


def problem(seed: int, objectives: int) -> tuple[Array, Array, Array]:
    """Return candidates (5, d), a front of up to 12 points, and a reference; all in [0, 1] but for some beyond."""
    rng = np.random.default_rng(seed)
    reference = rng.uniform(0.0, 0.4, objectives)
    points = rng.uniform(0.0, 1.0, (rng.integers(0, 12), objectives)).round(2)
    return rng.uniform(-0.1, 1.1, (5, objectives)).round(2), front_of(points, reference), reference


def volume(points: Array, reference: Array) -> float:
    """Return a hypervolume by moocore, 0 without points."""
    return float(moocore.hypervolume(points, ref=reference, maximise=True)) if len(points) else 0.0


@given(SEEDS, st.integers(2, 4))
def test_the_gain_is_the_difference_of_hypervolumes(seed: int, objectives: int) -> None:
    """With any number of certain objectives, the gain of a point is what moocore says with and without it."""
    candidates, front, reference = problem(seed, objectives)
    gained = improvement(candidates[:, :-1], candidates[:, -1], front, reference)
    brute = [volume(front_of(np.vstack([front, row]), reference), reference) for row in candidates]
    np.testing.assert_allclose(gained, np.array(brute) - volume(front, reference), rtol=0, atol=1e-12)


@given(SEEDS)
def test_weights_are_widths_between_neighbours(seed: int) -> None:
    """With one certain objective the weights are max(0, min(l_j+1, l_ref) − max(l, l_j)), all to be minimized."""
    candidates, front, reference = problem(seed, 2)
    order = np.argsort(-front[:, 0])
    edges = np.concatenate([[-np.inf], -front[order, 0], [-reference[0]]])
    latency = -candidates[:, :1]
    widths = np.maximum(0.0, np.minimum(edges[1:], -reference[0]) - np.maximum(latency, edges[:-1]))
    levels, weights = steps(candidates[:, :-1], front, reference)
    np.testing.assert_allclose(levels, np.append(reference[1], front[order, 1]))
    np.testing.assert_allclose(weights, widths, rtol=0, atol=1e-12)


@given(SEEDS, st.integers(2, 3))
def test_the_expectation_is_that_of_many_draws(seed: int, objectives: int) -> None:
    """The closed form agrees with the mean gain over 2,000 equally likely values."""
    candidates, front, reference = problem(seed, objectives)
    draws = candidates[:, -1:] + 0.2 * norm.ppf((np.arange(2000) + 0.5) / 2000)
    certain = np.repeat(candidates[:, :-1], 2000, axis=0)
    mean = improvement(certain, draws.ravel(), front, reference).reshape(draws.shape).mean(axis=1)
    closed = expected(candidates[:, :-1], candidates[:, -1], np.full(5, 0.2), front, reference)
    np.testing.assert_allclose(closed, mean, rtol=0, atol=1e-4)


@given(SEEDS, st.integers(2, 3), st.sampled_from([None, Clip(middle=0.3, unit=0.2)]))
def test_what_is_beyond_a_cap_gains_no_more_than_the_cap(seed: int, objectives: int, clip: Clip | None) -> None:
    """The closed form agrees with the mean gain over 2,000 equally likely values, those beyond the cap moved there."""
    candidates, front, reference = problem(seed, objectives)
    front[front[:, -1] > 0.9, -1] = 0.9  # a perfect answer, which nothing exceeds
    drawn = candidates[:, -1:] + 0.2 * norm.ppf((np.arange(2000) + 0.5) / 2000)
    values = np.minimum(drawn, 0.9)
    certain = np.repeat(candidates[:, :-1], 2000, axis=0)
    mean = improvement(certain, values.ravel(), front, reference).reshape(values.shape).mean(axis=1)
    given_ = candidates[:, :-1], candidates[:, -1], np.full(5, 0.2), front, reference
    closed = np.exp(log_expected(*given_, cap=0.9))
    np.testing.assert_allclose(closed, mean, rtol=0, atol=1e-4)
    assert (closed <= bound(candidates[:, :-1], 0.9, front, reference) + 1e-12).all()
    clipped = np.exp(log_expected(*given_, clip=clip, cap=0.9))
    assert (clipped <= np.exp(log_expected(*given_, clip=clip)) + 1e-12).all()
    assert (clipped[bound(candidates[:, :-1], 0.9, front, reference) == 0] == 0).all()


@pytest.mark.parametrize("z", [2.0, 0.0, -0.999, -1.001, -3.0, -10.0, -30.0])
def test_the_tail_is_exact(z: float) -> None:
    """Above an empty front the expectation is ∫ (1 − Φ), to a relative 1e-7, however small it is."""
    lone = log_expected(np.array([[1.0]]), np.array([z]), np.ones(1), np.empty((0, 2)), np.zeros(2))
    integral, _ = quad(lambda x: np.exp(norm.logsf(x) - norm.logsf(-z)), -z, -z + 40, points=[-z + 0.1, -z + 1, -z + 5])
    assert float(lone[0]) == pytest.approx(np.log(integral) + norm.logsf(-z), rel=1e-7, abs=1e-7)


def test_the_hopeless_still_have_an_order() -> None:
    """Far below every level the better mean has the higher logarithm, where the expectation itself is 0."""
    front, reference = np.array([[0.5, 0.9]]), np.zeros(2)
    mean = np.array([-1e3, -1e5, -1e7])
    logs = log_expected(np.full((3, 1), 0.4), mean, np.full(3, 1e-2), front, reference)
    assert np.isfinite(logs).all()
    assert (np.diff(logs) < 0).all()


@given(SEEDS, st.integers(2, 4), st.floats(0, 1))
def test_the_bound_holds_for_all_below_the_cap(seed: int, objectives: int, share: float) -> None:
    """No value up to the cap gains more than the bound, and the cap itself gains just as much."""
    candidates, front, reference = problem(seed, objectives)
    most = bound(candidates[:, :-1], 1.0, front, reference)
    below = reference[-1] + share * (1.0 - reference[-1])
    assert (improvement(candidates[:, :-1], np.full(5, below), front, reference) <= most + 1e-12).all()
    np.testing.assert_array_equal(improvement(candidates[:, :-1], np.ones(5), front, reference), most)


@given(SEEDS, st.integers(2, 4))
def test_the_bar_decides_who_enters_the_front(seed: int, objectives: int) -> None:
    """A candidate better than the reference gains something exactly when its last value is above its bar."""
    candidates, front, reference = problem(seed, objectives)
    inside = (candidates[:, :-1] > reference[:-1]).all(axis=1)
    level = bar(candidates[:, :-1], front, reference)
    assert (improvement(candidates[:, :-1], level, front, reference) <= 1e-12).all()
    assert (improvement(candidates[:, :-1], level + 1e-3, front, reference)[inside] > 0).all()


@given(SEEDS, st.integers(2, 4))
def test_a_front_beats_the_reference_in_everything(seed: int, objectives: int) -> None:
    """Points that tie with the reference in one objective are no part of a front."""
    _, front, reference = problem(seed, objectives)
    edge = reference + 0.1
    edge[0] = reference[0]
    again = front_of(np.vstack([front, edge]), reference)
    assert (again > reference).all()
    assert len(again) == len(front)


@given(st.floats(-6, 3), st.floats(-2, 2), st.floats(0.1, 2))
def test_the_mean_below_a_limit_is_that_of_what_is_left(z: float, mean: float, deviation: float) -> None:
    """It agrees with the weighted mean of a fine grid and is at most the limit."""
    limit = mean + z * deviation
    found = float(mean_below(np.array([limit]), np.array([mean]), np.array([deviation]))[0])
    values = z - np.linspace(12, 0, 20_001)
    weights = np.exp(-0.5 * values**2 + 0.5 * min(z, 0.0) ** 2)
    assert found == pytest.approx(mean + deviation * np.average(values, weights=weights), abs=1e-2)
    assert found <= limit


def test_a_daring_gain_is_that_of_a_lucky_outcome() -> None:
    """Every uncertain objective is taken so many deviations better, and what a front has already is no gain."""
    speed = Trained(np.array([1.0, 1.0, 3.0]), np.array([0.0, 0.5, 0.0]), IDLE)
    accuracy = Trained(np.array([0.5, 0.5, 0.1]), np.array([0.1, 0.1, 0.1]), IDLE)
    front, corner = np.array([[2.0, 0.6]]), np.array([0.0, 0.0])
    outlook = Outlook(objectives=[speed, accuracy], front=front, reference=corner, log_odds=np.zeros(3))
    found = outlook.daring(np.arange(3), 2.0)
    np.testing.assert_allclose(found, [1.0 * 0.1, 2.0 * 0.1, 1.0 * 0.3])


@given(SEEDS)
def test_drawn_values_gain_what_they_stand_for(seed: int) -> None:
    """The gain of outcomes above the clip's middle is exact, by Monte Carlo; of those below it is never overrated."""
    rng = np.random.default_rng(seed)
    clip = Clip(middle=float(rng.uniform(0.4, 0.8)), unit=float(rng.uniform(0.02, 0.2)))
    front, corner = np.array([[0.2, 0.9], [0.5, 0.7], [0.9, 0.15]]), np.array([0.0, 0.1])
    certain, mean, deviation = rng.uniform(0.0, 1.0, (1, 1)), rng.uniform(0.2, 0.9, 1), rng.uniform(0.01, 0.1, 1)
    found = np.exp(log_expected(certain, mean, deviation, front, corner, clip=clip))[0]
    drawn = mean + deviation * norm.ppf((np.arange(2000) + 0.5) / 2000)
    gains = improvement(np.repeat(certain, 2000, axis=0), clip.inverse(drawn), front, corner)
    assert gains[drawn >= clip.middle].sum() / 2000 - 1e-4 <= found <= gains.mean() + 1e-4
