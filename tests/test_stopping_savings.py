"""Savings: what is counted, and when a stop was false."""

import math
from dataclasses import replace

import pytest
from scipy import stats
from stopping_toy import curve_of, finished, plan, record, run_of

from beats_search.records.objective import Constraint
from beats_search.records.outcome import Failed, Interval, Stopped
from beats_search.records.run import TrialRecord
from beats_search.report.savings import Savings, savings_of_run

REFERENCE = record(0, plan(), finished(0.9, 10.0))


def stopped(number: int, epoch: int, seconds: float = 1.0) -> TrialRecord:
    """Return a trial that was stopped after an epoch."""
    curve = tuple(replace(score, seconds=seconds) for score in curve_of(*(0.5,) * epoch))
    return record(number, plan(), Stopped(epoch=epoch, reason="hopeless", curve=curve))


def spared(number: int, accuracy: float, latency_ms: float = 10.0) -> TrialRecord:
    """Return a trial that was spared and ended there."""
    return record(number, plan(), finished(accuracy, latency_ms), spared_at=2)


def test_a_run_without_stops_saved_nothing() -> None:
    """Where nothing was stopped or spared, nothing is known of the rate."""
    found = savings_of_run(run_of(REFERENCE, record(1, plan(), Failed(stage="training", reason="diverged"))))
    assert found == Savings(stopped=0, epochs=0, seconds=0.0, spared=0, false_stops=0, on_front=0)
    assert math.isnan(found.rate)
    assert found.interval == Interval(low=0.0, high=1.0)


def test_epochs_of_recovery_are_saved_too() -> None:
    """A trial of 16 epochs and 2 of recovery that stops after 4 saves 14; after the last it saves 2."""
    found = savings_of_run(run_of(REFERENCE, stopped(1, 4), stopped(2, 16)))
    assert (found.stopped, found.epochs) == (2, 14 + 2)


def test_seconds_are_at_the_pace_of_the_trial() -> None:
    """What was left out is taken to last as long as the epochs of the same trial that ran."""
    found = savings_of_run(run_of(REFERENCE, stopped(1, 4, seconds=2.0), stopped(2, 16, seconds=0.5)))
    assert found.seconds == 14 * 2.0 + 2 * 0.5


def test_a_false_stop_reached_the_front_when_it_ended() -> None:
    """Whether a later trial dominates it makes no difference to that, but to who is on the front now."""
    trials = (REFERENCE, spared(1, 0.92), spared(2, 0.91), spared(3, 0.95), spared(4, 0.5, latency_ms=1.0))
    found = savings_of_run(run_of(*trials))
    assert (found.spared, found.false_stops, found.on_front) == (4, 3, 2)
    assert found.rate == 0.75


def test_a_spared_trial_that_equals_another_is_no_false_stop() -> None:
    """The front keeps the first of equals."""
    assert savings_of_run(run_of(REFERENCE, spared(1, 0.9))).false_stops == 0


def test_a_spared_trial_that_breaks_a_limit_is_no_false_stop() -> None:
    """What may not be used was not worth going on."""
    limit = Constraint(name="latency_ms", sign="<=", bound=20.0)
    run = replace(run_of(REFERENCE, spared(1, 0.99, latency_ms=30.0)), constraints=(limit,))
    assert (savings_of_run(run).spared, savings_of_run(run).false_stops) == (1, 0)


def test_a_spared_trial_that_failed_is_no_false_stop() -> None:
    """It counts among the spared all the same."""
    failed = record(1, plan(), Failed(stage="export", reason="no graph"), spared_at=1)
    assert (
        savings_of_run(run_of(failed, REFERENCE)).spared,
        savings_of_run(run_of(REFERENCE, failed)).false_stops,
    ) == (1, 0)


def test_latencies_are_those_that_the_search_knew() -> None:
    """A trial that only the second timing puts behind another was on the front when it ended."""
    slow = spared(1, 0.8, latency_ms=20.0)
    timed = replace(run_of(REFERENCE, slow), first_latency={1: finished(0.8, 5.0).latency})
    assert (savings_of_run(timed).false_stops, savings_of_run(timed).on_front) == (1, 0)


@pytest.mark.parametrize(("wrong", "count"), [(0, 1), (0, 20), (3, 20), (20, 20)])
def test_interval_is_wilsons(wrong: int, count: int) -> None:
    """It is the one that scipy computes."""
    found = Savings(stopped=0, epochs=0, seconds=0.0, spared=count, false_stops=wrong, on_front=0).interval
    expected = stats.binomtest(wrong, count).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
