"""Stopping: who is judged and when, what the bar is, and what it costs and saves in a search with a known law."""

import math
import random
from dataclasses import replace
from functools import lru_cache
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stopping_toy import (
    ACCURACY,
    EPOCHS,
    IMAGES,
    LATENCY,
    SIZE,
    curve_of,
    finished,
    plan,
    record,
    run_of,
    searched,
    unstopped,
    wilson,
)

from beats_search.pareto import front_of_run, hypervolume_of_run
from beats_search.records.objective import Constraint, Objective
from beats_search.records.outcome import EpochScore, Failed
from beats_search.records.plan import TrialPlan
from beats_search.records.run import RunRecord
from beats_search.report.savings import savings_of_run
from beats_search.search.stopping import GoOn, Spare, Stop, Stopping, Verdict, _images, bar, is_rung, is_spared, judge

ALWAYS_STOP = Stopping(spared=0.0)
SHARES = st.integers(0, IMAGES).map(lambda count: count / IMAGES)
SMALL = st.integers(1, 5).map(float)


@lru_cache
def history(trials: int = 12, objectives: tuple[Objective, ...] = (ACCURACY, LATENCY)) -> RunRecord:
    """Return a run whose trials all ended near 95 %, after an epoch near 80 %."""
    noise = random.Random(0)
    ended = [
        finished(0.95 + noise.gauss(0, 0.005), 10.0, curve_of(*(0.8 + noise.gauss(0, 0.01),) * EPOCHS))
        for _ in range(trials)
    ]
    return run_of(*(record(number, plan(), outcome) for number, outcome in enumerate(ended)), objectives=objectives)


def verdict(
    run: RunRecord,
    *readings: float,
    stopping: Stopping = ALWAYS_STOP,
    number: int = 99,
    of: TrialPlan | None = None,
    known: dict[str, float] | None = None,
) -> Verdict:
    """Judge a trial that is as slow as all others, by its readings."""
    known = {"latency_ms": 10.0} if known is None else known
    return judge(stopping, run, number=number, plan=of or plan(), known=known, curve=curve_of(*readings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"delta": 0.0}, "delta is a probability and needs to be above 0 and below 1, got 0.0"),
        ({"delta": 1.0}, "delta is a probability"),
        ({"delta": math.nan}, "delta is a probability"),
        ({"fewest": 0}, "fewest needs to be at least 1 finished trial, got 0"),
        ({"spared": -0.1}, "spared is a share and needs to be between 0 and 1, got -0.1"),
        ({"spared": math.nan}, "spared is a share"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, float], message: str) -> None:
    """The message states the rule and the value."""
    with pytest.raises(ValueError, match=message):
        Stopping(**settings)  # type: ignore[arg-type] # a float where a count belongs is among the mistakes


def test_rungs_are_powers_of_two_and_the_last_epoch() -> None:
    """Nothing is decided in other epochs."""
    assert [epoch for epoch in range(1, 12) if is_rung(epoch, 11)] == [1, 2, 4, 8, 11]


def test_a_hopeless_trial_is_stopped() -> None:
    """A trial that reads far below all others will not exceed them."""
    found = verdict(history(), 0.3)
    assert isinstance(found, Stop)
    assert found.outlook.epoch == 1
    assert found.outlook.probability < 0.05
    assert found.outlook.bar == max(outcome.accuracy for _, outcome in history().finished())


def test_a_promising_trial_goes_on() -> None:
    """A trial that reads above all others goes on, and it is told what is expected."""
    found = verdict(history(), 0.9)
    assert isinstance(found, GoOn)
    assert found.outlook is not None
    assert found.outlook.probability >= 0.05


@given(st.integers(1, 7), SHARES, st.integers(0, 4))
def test_nothing_is_stopped_before_enough_have_finished(trials: int, reading: float, doublings: int) -> None:
    """With fewer finished trials than `fewest`, whatever is read, at every rung."""
    assert verdict(history(trials), *(reading,) * 2**doublings) == GoOn()


def test_stopped_and_failed_trials_are_not_finished() -> None:
    """Only finished trials count toward `fewest`."""
    failures = [record(number, plan(), Failed(stage="training", reason="diverged")) for number in range(20, 40)]
    assert verdict(replace(history(7), trials=(*history(7).trials, *failures)), 0.0) == GoOn()


@given(st.tuples(SHARES, SHARES).map(sorted), st.integers(0, 4))
def test_a_better_reading_never_stops_a_trial(readings: list[float], doublings: int) -> None:
    """What goes on with one reading goes on with a better one."""
    before = (0.5,) * (2**doublings - 1)
    worse, better = (verdict(history(), *before, reading) for reading in readings)
    assert isinstance(worse, Stop) or isinstance(better, GoOn)


@given(SHARES, st.tuples(st.floats(0.1, 0.999), st.floats(0.1, 0.999)).map(sorted))
def test_a_higher_bar_never_saves_a_trial(reading: float, bars: list[float]) -> None:
    """What is stopped under one bar is stopped under a higher one."""
    corners = ({"accuracy": limit, "latency_ms": 99.0} for limit in bars)
    runs = [replace(history(), reference_point=corner) for corner in corners]
    low, high = (verdict(run, reading, known={"latency_ms": 1.0}) for run in runs)
    assert isinstance(low, GoOn) or isinstance(high, Stop)


def test_the_bar_is_that_of_the_run_as_it_is() -> None:
    """A trial that would go on is stopped once another one has reached more at its latency."""
    better = record(50, plan(), finished(0.999, 9.0))
    assert isinstance(verdict(history(), 0.8, known={"latency_ms": 1.0}), GoOn)
    assert isinstance(verdict(history(), 0.8), GoOn)
    assert isinstance(verdict(replace(history(), trials=(*history().trials, better)), 0.8), Stop)


@pytest.mark.parametrize("epoch", [3, 5, 6, 7, 9, 15])
def test_between_rungs_nothing_is_judged(epoch: int) -> None:
    """The same reading that stops a trial at a rung is not looked at elsewhere."""
    assert verdict(history(), *(0.3,) * epoch) == GoOn()
    assert isinstance(verdict(history(), *(0.3,) * EPOCHS), Stop)


def test_last_epochs_are_one_rung() -> None:
    """After its last epoch a trial is compared with others after their last, however many there were."""
    assert isinstance(verdict(history(), *(0.3,) * 5, of=plan(epochs=5)), Stop)
    assert verdict(history(), *(0.3,) * 16, of=plan(epochs=99)) == GoOn()


@pytest.mark.parametrize("known", [{}, {"latency_ms": math.nan}, {"size_kb": 1.0}])
def test_without_known_costs_there_is_no_bar(known: dict[str, float]) -> None:
    """A trial of which not all objectives but accuracy are known is never stopped."""
    assert verdict(history(), 0.0, known=known) == GoOn()


def test_every_objective_but_accuracy_needs_to_be_known() -> None:
    """With three objectives, two need to be known."""
    run = history(objectives=(ACCURACY, LATENCY, SIZE))
    assert verdict(run, 0.3) == GoOn()
    assert isinstance(verdict(run, 0.3, known={"latency_ms": 10.0, "size_kb": 1.0}), Stop)
    assert isinstance(verdict(run, 0.9, known={"latency_ms": 10.0, "size_kb": 0.9}), GoOn)


def test_without_accuracy_as_objective_nothing_is_stopped() -> None:
    """There is nothing that training could improve."""
    run = history(objectives=(LATENCY, SIZE))
    assert verdict(run, 0.0, known={"latency_ms": 10.0, "size_kb": 1.0}) == GoOn()


def test_accuracy_alone_needs_nothing_known() -> None:
    """With one objective the bar is the best accuracy so far."""
    found = verdict(history(objectives=(ACCURACY,)), 0.3, known={})
    assert isinstance(found, Stop)
    assert "to be the best" in found.reason


def test_the_reference_is_never_stopped() -> None:
    """Without trial 0 there is no search."""
    assert verdict(history(), 0.0, number=0) == GoOn()


@pytest.mark.parametrize("objectives", [(ACCURACY, LATENCY), (ACCURACY, LATENCY, SIZE)])
@given(trials=st.lists(st.tuples(SHARES, SMALL, SMALL), max_size=8), own=st.tuples(SHARES, SMALL, SMALL))
def test_exceeding_the_bar_is_reaching_the_front(
    objectives: tuple[Objective, ...], trials: list[tuple[float, float, float]], own: tuple[float, float, float]
) -> None:
    """A trial that beats guessing is on the front exactly when its accuracy exceeds its bar."""
    ended = [finished(accuracy, latency, size_kb=size) for accuracy, latency, size in trials]
    candidate = finished(own[0], own[1], size_kb=own[2])
    run = run_of(*(record(number, plan(), outcome) for number, outcome in enumerate(ended)), objectives=objectives)
    known = {name: candidate.value(name) for name in ("latency_ms", "size_kb")}
    whole = replace(run, trials=(*run.trials, record(99, plan(), candidate)))
    reached = 99 in {trial.number for trial, _ in front_of_run(whole)}
    assert (candidate.accuracy > bar(run, known)) == (reached and candidate.accuracy > 0.1)


def test_the_bar_is_set_by_those_that_keep_the_limits() -> None:
    """A trial that breaks a limit is no rival; a limit on accuracy is a bar, and reaching it is enough."""
    run = run_of(record(0, plan(), finished(0.9, 1.0, size_kb=9.0)), record(1, plan(), finished(0.5, 1.0)))
    small = replace(run, constraints=(Constraint(name="size_kb", sign="<=", bound=5.0),))
    good = replace(small, constraints=(*small.constraints, Constraint(name="accuracy", sign=">=", bound=0.8)))
    known = {"latency_ms": 1.0}
    assert (bar(run, known), bar(small, known), bar(good, known, one_image=0.01)) == (0.9, 0.5, 0.8 - 0.01)
    assert bar(small, {"latency_ms": 0.5}) == run.reference_point["accuracy"]


def test_spared_trials_are_drawn_once() -> None:
    """A trial is spared at all of its rungs or none, after a restart too; another run spares others."""
    half = Stopping(spared=0.5)
    plans = [plan(width=width) for width in range(1, 401)]
    draws = [is_spared(half, 0, each) for each in plans]
    assert draws == [is_spared(half, 0, each) for each in plans]
    assert draws != [is_spared(half, 1, each) for each in plans]
    assert abs(sum(draws) - 200) < 4 * math.sqrt(400 / 4)
    for drawn, kind in ((True, Spare), (False, Stop)):
        rates = (0.03 + step / 1000 for step in range(99))
        of = next(plan(lr=lr) for lr in rates if is_spared(half, 0, plan(lr=lr)) is drawn)
        assert {type(verdict(history(), *(0.1,) * 2**step, stopping=half, of=of)) for step in range(5)} == {kind}


def test_who_is_spared_would_have_been_stopped() -> None:
    """Sparing changes the verdict of hopeless trials only, and nothing else about it."""
    everyone = Stopping(spared=1.0)
    stop, spare = (verdict(history(), 0.3, stopping=stopping) for stopping in (ALWAYS_STOP, everyone))
    assert isinstance(stop, Stop)
    assert spare == Spare(outlook=stop.outlook, reason=stop.reason)
    assert isinstance(verdict(history(), 0.9, stopping=everyone), GoOn)


def test_the_reason_is_a_sentence() -> None:
    """It names the epoch, the reading, the bar, what of the trial's costs counts, and the chance."""
    run = history(objectives=(ACCURACY, LATENCY, SIZE))
    found = verdict(run, 0.5, 0.3, known={"latency_ms": 12.34, "size_kb": 120.0, "macs": 7.0})
    assert isinstance(found, Stop)
    assert found.reason == (
        f"after epoch 2 it reads 30.0 %; it would have to end above {100 * found.outlook.bar:.1f} % "
        "to be worth its 12.3 ms and 120 kB, which happens with a probability of less than 1 %"
    )


def test_a_reading_that_is_no_number_is_not_judged() -> None:
    """Divergence is judged elsewhere; a loss that is no number does not matter."""
    assert verdict(history(), math.nan) == GoOn()
    curve = (EpochScore(epoch=1, train_loss=math.nan, accuracy=0.3, seconds=1.0),)
    found = judge(ALWAYS_STOP, history(), number=99, plan=plan(), known={"latency_ms": 10.0}, curve=curve)
    assert isinstance(found, Stop)
    assert verdict(history()) == GoOn()


def test_a_finished_trial_without_the_rung_is_left_out() -> None:
    """Trials whose curve has no number at the rung teach nothing about it, and do not count."""
    ended = [replace(outcome, curve=curve_of(math.nan, 0.8)) for _, outcome in history().finished()]
    run = run_of(*(record(number, plan(), outcome) for number, outcome in enumerate(ended)))
    assert verdict(run, 0.3) == GoOn()
    assert isinstance(verdict(run, 0.8, 0.3), Stop)


@pytest.mark.parametrize(("share", "images"), [*product([0.0, 0.1, 0.5, 0.93, 1.0], [100, 288, 10_000])])
def test_images_are_counted_from_the_interval(share: float, images: int) -> None:
    """The width of an accuracy's interval tells how many images it was measured on."""
    outcome = replace(finished(share, 1.0), accuracy_interval=wilson(share, images))
    assert _images(run_of(record(0, plan(), outcome))) == images


def test_an_interval_that_tells_nothing_is_one_of_few_images() -> None:
    """Log-odds are clipped somewhere, however wide the interval is."""
    outcome = replace(finished(0.9, 1.0), accuracy_interval=replace(wilson(0.9), low=0.0, high=1.0))
    assert _images(run_of(record(0, plan(), outcome))) == 100


@pytest.mark.slow
def test_stopping_saves_epochs_and_loses_nothing() -> None:
    """Over searches with a known law: false stops at most delta, 1 % of the hypervolume lost, a quarter saved."""
    stopping, trials, seeds = Stopping(), 120, range(2)
    found = [searched(trials, seed, stopping) for seed in seeds]
    stops, wrong = sum(one.stopped for one in found), sum(one.false_stops for one in found)
    assert stops > 60
    assert wrong <= stopping.delta * stops + 2 * math.sqrt(stopping.delta * (1 - stopping.delta) * stops)
    for seed, one in zip(seeds, found, strict=True):
        assert hypervolume_of_run(one.run) >= 0.99 * hypervolume_of_run(unstopped(trials, seed))
        assert savings_of_run(one.run).epochs > 0.25 * trials * (EPOCHS + 2)
