"""What the frontier sampler is made of: codes, the Gaussian process, surrogates, notes."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from beats_search.search.clipping import clip_at
from beats_search.search.frontier.codes import Codes, Features
from beats_search.search.frontier.gaussian_process import _misfit, fit
from beats_search.search.frontier.history import Ended, History, Note, read_note, write_note
from beats_search.search.frontier.oracle import Answer
from beats_search.search.frontier.pool import around, distinct
from beats_search.search.frontier.surrogates import (
    learn,
    limits,
    log_mean,
    log_share,
    log_within,
    normal_nodes,
    recent,
    success,
)

SPACE: Mapping[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-3, 1.0, log=True),
    "momentum": FloatDistribution(0.0, 0.9, step=0.3),
    "decay": FloatDistribution(-1.0, 1.0),
    "width": IntDistribution(8, 64, step=8),
    "depth": IntDistribution(1, 100, log=True),
    "kernel.0": CategoricalDistribution((1, 3, None)),
    "kernel.1": CategoricalDistribution((1, 3, None)),
    "kind": CategoricalDistribution(("a", "b")),
}
CODES = Codes(SPACE)
SEEDS = st.integers(0, 2**32 - 1)


def sample(seed: int, count: int = 40) -> Features:
    """Return random plans as points."""
    return CODES.features(CODES.random(np.random.default_rng(seed), count))


@given(SEEDS)
def test_rows_are_values_that_optuna_allows(seed: int) -> None:
    """Random rows and their neighbours become values of the study, and come back as the same row."""
    rng = np.random.default_rng(seed)
    start = CODES.random(rng, 1)
    for row in (*start, *CODES.neighbours(start[0], rng)):
        params = CODES.params(row)
        assert all(SPACE[name]._contains(SPACE[name].to_internal_repr(value)) for name, value in params.items())
        np.testing.assert_array_equal(CODES.row(params), row)


@given(SEEDS)
def test_neighbours_differ_in_one_knob(seed: int) -> None:
    """Each neighbour has another value of exactly one knob, and every knob has some."""
    rng = np.random.default_rng(seed)
    (row,) = CODES.random(rng, 1)
    changed = CODES.neighbours(row, rng) != row
    assert (changed.sum(axis=1) == 1).all()
    assert changed.any(axis=0).all()


def test_knobs_without_use_are_left_out() -> None:
    """A knob that a plan does not have is NaN in its row and absent from its values, and tells the model nothing."""
    row = CODES.row({"kind": "b", "lr": 0.1})
    assert CODES.params(row) == {"kind": "b", "lr": pytest.approx(0.1)}
    assert np.isfinite(CODES.features(row[None]).points).all()


def test_values_that_are_no_longer_allowed_are_unused() -> None:
    """A value from before a space was edited does not stop the model."""
    assert np.isnan(CODES.row({"kind": "gone", "width": 4096, "lr": "fast"})).all()


def test_options_that_are_numbers_have_an_order() -> None:
    """The next one is nearer than the one after, equal ones are together, and what is no number is in the middle."""
    options: Mapping[str, tuple[Any, ...]] = {"n": (8, 32, 16), "mixed": (1, 1.0, 2, 3), "off": (0.1, "off", 0.2, 0.3)}
    codes = Codes({name: CategoricalDistribution(choices) for name, choices in options.items()})

    def gaps(name: str) -> list[float]:
        column = codes.names.index(name)
        rows = np.zeros((len(options[name]), len(codes.names)))
        rows[:, column] = np.arange(len(rows))
        points = codes.features(rows).points
        return [float(((point - points[0]) ** 2).sum()) for point in points[1:]]

    assert gaps("n") == pytest.approx([5.0, 2.0])
    assert gaps("mixed") == pytest.approx([1.0, 2.0, 5.0])
    assert gaps("off") == pytest.approx([2.0, 2.0, 5.0])


def test_names_truth_values_and_pairs_have_no_order() -> None:
    """All their options are a distance of one apart."""
    for choices in (("8", "32", "16"), (True, False), (8, 64)):
        points = (
            Codes({"x": CategoricalDistribution(choices)})
            .features(np.arange(len(choices), dtype=float)[:, None])
            .points
        )
        assert ((points - points[0]) ** 2).sum(axis=1)[1:] == pytest.approx(np.ones(len(choices) - 1))


def test_an_order_counts_neither_in_counts_nor_on_rings() -> None:
    """How often an option is chosen has no order; and the start goes to the ends of numbers no sooner than between."""
    codes = Codes({name: CategoricalDistribution((3, 5, 7)) for name in ("a", "b")})
    rows = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    for points in (codes.features(rows).counts, codes.rings(rows)):
        squares = ((points - points[0]) ** 2).sum(axis=1)[1:]
        assert squares == pytest.approx(np.full(2, squares[0]))


def test_one_choice_is_a_distance_of_one() -> None:
    """Plans that differ in one choice are 1 apart, and counts see knobs with equal options as one."""
    base: dict[str, Any] = {"kernel.0": 1, "kernel.1": 3}
    rows = [CODES.row(base), CODES.row({"kernel.0": 3, "kernel.1": 3}), CODES.row({"kernel.0": 3, "kernel.1": 1})]
    one, other, swapped = (CODES.features(row[None]) for row in rows)
    assert ((one.points - other.points) ** 2).sum() == pytest.approx(1.0)
    assert ((one.counts - other.counts) ** 2).sum() == pytest.approx(1.0)
    np.testing.assert_allclose(one.counts, swapped.counts)


@given(SEEDS)
def test_a_pool_holds_each_plan_once(seed: int) -> None:
    """Of random rows and neighbours, those taken and second copies are left out."""
    rng = np.random.default_rng(seed)
    rows = np.vstack([CODES.random(rng, 3)] * 2)
    rows = np.vstack([rows, around(CODES, rows[:1], rng, 20)])
    left = distinct(rows, frozenset({rows[1].tobytes()}))
    keys = [row.tobytes() for row in left]
    assert len(keys) == len(set(keys))
    assert rows[1].tobytes() not in keys
    assert rows[0].tobytes() in keys


@given(SEEDS)
def test_slopes_are_those_of_the_likelihood(seed: int) -> None:
    """Every slope agrees with a difference quotient."""
    rng = np.random.default_rng(seed)
    features, values = sample(seed, 12), rng.normal(size=12)
    settings = np.append([-1.0, -1.0, 0.7, 0.7, -2.0], np.zeros(len(CODES.names)))
    settings += rng.normal(0, 0.3, len(settings))
    _, slope = _misfit(settings, features, values)
    for index in range(len(settings)):
        step = np.zeros(len(settings))
        step[index] = 1e-5
        high, low = (_misfit(settings + sign * step, features, values)[0] for sign in (1, -1))
        assert slope[index] == pytest.approx((high - low) / 2e-5, rel=1e-3, abs=1e-5)


def test_a_process_learns_a_smooth_function() -> None:
    """From 60 plans it predicts others to a fraction of their spread, and knows where it does not know."""

    def truth(features: Features) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.asarray(np.sin(features.points[:, 0] * 2) + features.counts[:, 0])

    seen, unseen = sample(0, 60), sample(1, 200)
    belief = fit(seen, truth(seen)).at(unseen)
    error = truth(unseen) - belief.mean
    assert np.sqrt((error**2).mean()) < 0.25 * truth(unseen).std()
    assert (np.abs(error) < 3 * belief.deviation + 0.05).mean() > 0.95


def test_observing_later_is_observing_at_once() -> None:
    """A belief that takes in values one by one is the belief of a process that had them all."""
    seen, pool = sample(0, 20), sample(1, 15)
    values = np.sin(seen.points).sum(axis=1)
    process = fit(seen, values)
    belief = process.at(pool)
    for index, value in ((3, 0.4), (7, -0.2)):
        belief.observe(index, value)
    both = Features(
        np.vstack([seen.points, pool.points[[3, 7]]]), seen.owner, np.vstack([seen.counts, pool.counts[[3, 7]]])
    )
    at_once = process.observing(both, np.append(values, [0.4, -0.2])).at(pool)
    np.testing.assert_allclose(belief.mean, at_once.mean, atol=1e-8)
    np.testing.assert_allclose(belief.deviation, at_once.deviation, atol=1e-6)


@pytest.mark.parametrize("values", [np.zeros(5), np.full(5, 0.9)])
def test_equal_values_are_no_obstacle(values: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    """A process of values without a spread predicts that value."""
    belief = fit(sample(0, 5), values).at(sample(1, 3))
    np.testing.assert_allclose(belief.mean, values[0], atol=1e-6)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.sampled_from([0.0, 0.25, 0.5]))
def test_clipping_keeps_order_and_the_better_part(values: list[float], share: float) -> None:
    """Nothing at or above the quantile changes, all below is drawn up to it, and no order turns round."""
    array = np.array(values)
    clip = clip_at(array, share)
    found, slope = clip(array), clip.slope(array)
    upper = array >= np.quantile(array, share)
    np.testing.assert_array_equal(found[upper], array[upper])
    assert (found >= array - 1e-12).all()
    assert (np.diff(found[np.argsort(array)]) >= 0).all()
    assert ((slope > 0) & (slope <= 1)).all()


@given(st.lists(st.floats(0.0, 0.9), min_size=1, max_size=9))
def test_a_plateau_of_best_values_leaves_others_apart(lower: list[float]) -> None:
    """Where half of all values are the best, those below are drawn up by no more than the step to the second best."""
    array = np.array([*lower, *[0.97] * (len(lower) + 1)])
    found, step = clip_at(array, 0.5)(array), 0.97 - max(lower)
    np.testing.assert_allclose(found[: len(lower)], 0.97 - step * np.log1p((0.97 - array[: len(lower)]) / step))


@given(st.integers(0, 3000), st.integers(2, 500))
def test_recent_ones_are_kept(count: int, most: int) -> None:
    """Up to `most` indices in order, the newest among them, all if there are no more."""
    found = recent(count, most)
    assert len(found) <= most
    assert len(found) == count or count > most
    assert set(range(count - min(count, most) // 2, count)) <= set(found.tolist())


@pytest.mark.parametrize("dimensions", [0, 1, 2, 3])
def test_nodes_stand_for_a_gaussian(dimensions: int) -> None:
    """In each dimension their mean is near 0 and their spread near 1."""
    nodes = normal_nodes(dimensions)
    assert nodes.shape[1] == dimensions
    assert (np.abs(nodes.mean(axis=0)) < 0.2).all()
    assert (np.abs(nodes.std(axis=0) - 1) < 0.3).all()


def test_means_of_logarithms_do_not_overflow() -> None:
    """The mean of values is told by their logarithms, however large or small, and of nothing but zeros it is zero."""
    logs = np.array([[-2000.0, 900.0, -np.inf], [-2000.0, 900.0, -np.inf]])
    np.testing.assert_array_equal(log_mean(logs), [-2000.0, 900.0, -np.inf])


def test_notes_come_back_as_they_were_written() -> None:
    """What a proposal asked and chose survives the study, in attributes short enough for any database."""
    rng = np.random.default_rng(0)
    rows = [row.tobytes() for row in CODES.random(rng, 60)]
    unused = CODES.row({"kind": "a"}).tobytes()
    answers = {
        row: Answer(values={"latency_ms": float(rng.random()), "macs": 3.0}, allowed=bool(n % 2))
        for n, row in enumerate(rows)
    }
    note = Note(asked={**answers, unused: None}, chosen=unused)
    study = optuna.create_study(directions=["maximize", "minimize"])
    trial = study.ask()
    write_note(study, study.trials[0], CODES, note)
    told = study.trials[trial.number]
    assert read_note(told, CODES) == note
    assert max(len(json.dumps(part)) for part in told.system_attrs.values()) < 2046
    assert read_note(told, Codes({"kind": SPACE["kind"]})) is None


LINE = Codes({"x": FloatDistribution(0.0, 1.0)})
PLACES = np.linspace(0, 1, 11)[:, None]


def history(ended: list[Ended], gains: np.ndarray[Any, np.dtype[np.float64]]) -> History:
    """Return a history of plans along a line with one objective; a limit is broken by 0.5 − x."""
    finished = np.array([item is Ended.FINISHED for item in ended])
    return History(
        rows=PLACES,
        ended=tuple(ended),
        gains=np.where(finished, gains, np.nan)[:, None],
        expected=np.full((len(ended), 1), np.nan),
        limits=("memory",),
        violations=np.where(finished[:, None], 0.5 - PLACES, np.nan),
        bare=np.empty((0, 1)),
        asked={},
        taken=frozenset(),
    )


def test_failures_make_failures_likely_nearby() -> None:
    """Where all trials failed success is below 1 in 20, where none did it is above 19 in 20."""
    seen = history([Ended.FAILED if x > 0.55 else Ended.FINISHED for x in PLACES[:, 0]], PLACES[:, 0])
    odds = np.exp(log_share(success(seen, LINE), LINE.features(np.array([[0.05], [0.95]]))))
    assert odds[0] > 0.95
    assert odds[1] < 0.05


def test_without_failures_success_is_certain() -> None:
    """A history in which nothing failed says nothing against any plan."""
    seen = history([Ended.FINISHED] * 11, PLACES[:, 0])
    assert success(seen, LINE) is None
    np.testing.assert_array_equal(log_share(None, LINE.features(PLACES)), 0.0)


def test_limits_are_kept_where_they_were_kept() -> None:
    """A limit that only training decides is learned from its violations; one known before is left out."""
    seen = history([Ended.FINISHED] * 11, PLACES[:, 0])
    odds = np.exp(log_within(limits(seen, LINE, frozenset()), LINE.features(np.array([[0.2], [0.8]]))))
    assert odds[0] < 0.05
    assert odds[1] > 0.95
    assert limits(seen, LINE, frozenset({"memory"})) == ()


def test_stopped_trials_count_as_below_their_bars() -> None:
    """Stopped where the finished ones promise most, they pull the model below the bar, yet not to the bottom."""
    ended = [Ended.STOPPED if x > 0.65 else Ended.FINISHED for x in PLACES[:, 0]]
    seen, bars = history(ended, PLACES[:, 0]), np.full(11, 0.6)
    there = LINE.features(np.array([[0.9]]))
    with_them = learn(seen, LINE, 0, bars).at(there).mean[0]
    ended = [Ended.SPARED if item is Ended.STOPPED else item for item in ended]
    without = learn(history(ended, PLACES[:, 0]), LINE, 0, bars).at(there).mean[0]
    assert 0.3 < with_them < 0.62 < without


def test_running_trials_leave_the_mean_and_narrow_the_spread() -> None:
    """What is expected of a running trial is taken for its value."""
    ended = [Ended.RUNNING if x > 0.85 else Ended.FINISHED for x in PLACES[:, 0]]
    seen, bars = history(ended, np.sin(4 * PLACES[:, 0])), np.zeros(11)
    there = LINE.features(np.array([[1.0]]))
    believed = learn(seen, LINE, 0, bars).at(there)
    ended = [Ended.SPARED if item is Ended.RUNNING else item for item in ended]
    before = learn(history(ended, np.sin(4 * PLACES[:, 0])), LINE, 0, bars).at(there)
    assert believed.mean[0] == pytest.approx(before.mean[0], abs=0.05)
    assert believed.deviation[0] < 0.8 * before.deviation[0]


def test_a_stopped_trial_counts_as_what_it_was_expected_to_reach() -> None:
    """Where that is less than what lies below its bar, it pulls the model there; where it is more, nothing changes."""
    ended = [Ended.STOPPED if x > 0.65 else Ended.FINISHED for x in PLACES[:, 0]]
    seen, bars = history(ended, PLACES[:, 0]), np.full(11, 0.6)
    stopped = np.array([item is Ended.STOPPED for item in ended])
    there = LINE.features(np.array([[0.9]]))
    low, high = (replace(seen, expected=np.where(stopped, value, np.nan)[:, None]) for value in (0.1, 2.0))
    unknown, poor, good = (learn(one, LINE, 0, bars).at(there).mean[0] for one in (seen, low, high))
    assert poor < unknown - 0.1
    assert good == unknown
