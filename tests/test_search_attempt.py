"""Attempt: what cannot pay is not trained, what no longer pays is stopped, and the reference always runs to its end."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from report_runs import REFERENCE_MS, finished, plan, record, run_of

from beats_search.records.objective import Constraint
from beats_search.records.outcome import EpochScore, Finished, Stopped, TrialOutcome
from beats_search.records.plan import TrialPlan
from beats_search.records.run import RunRecord
from beats_search.search.attempt import Attempt, Attempted, KeepGoing
from beats_search.search.stopping import Stopping

GOOD = run_of(record(0, finished(0.9, REFERENCE_MS)), *(record(n, finished(0.95, 0.1)) for n in range(1, 10)))
LIMITED = replace(GOOD, constraints=(Constraint(name="latency_ms", sign="<=", bound=0.3),))


class Training:
    """A trial of four epochs that reads no better than guessing, and counts those it was let do."""

    def __init__(self) -> None:
        """Begin with none."""
        self.epochs = 0

    def __call__(self, number: int, of: TrialPlan, keep_going: KeepGoing) -> TrialOutcome:
        """Train until nobody wants to go on."""
        del number, of
        for epoch in range(1, 5):
            self.epochs = epoch
            if not keep_going(EpochScore(epoch=epoch, train_loss=1.0, accuracy=0.1, seconds=1.0)):
                return Stopped(epoch=epoch, reason="the search asked for no more epochs", curve=())
        return finished(0.1, 0.2)


def _attempted(
    run: RunRecord,
    training: Training,
    latency_ms: float,
    number: int = 20,
    stopping: Stopping | None = Stopping(spared=0.0),  # noqa: B008 - frozen
) -> Attempted:
    attempt = Attempt(lambda: run, number, plan(), known=_always({"latency_ms": latency_ms}), stopping=stopping)
    return attempt.ended(attempt.refused or training(number, plan(), attempt.keep_going))


def _always(values: Mapping[str, float]) -> Callable[[TrialPlan], Mapping[str, float]]:
    return lambda _: values


def test_a_broken_limit_costs_no_training() -> None:
    """A plan whose latency is known to be too large ends before its first epoch, and says by how much."""
    training = Training()
    found = _attempted(LIMITED, training, 0.35)
    assert training.epochs == 0
    assert isinstance(found.outcome, Stopped)
    assert (found.outcome.epoch, found.outcome.foreseen) == (0, "limit")
    assert "0.35" in found.outcome.reason
    assert "latency_ms <= 0.3" in found.outcome.reason


def test_what_gains_nothing_even_when_perfect_is_not_trained() -> None:
    """A plan as slow as the worst corner has nothing to win; a fast one is trained."""
    slow, fast = Training(), Training()
    hopeless = _attempted(GOOD, slow, GOOD.reference_point["latency_ms"], stopping=None)
    assert isinstance(hopeless.outcome, Stopped)
    assert (hopeless.outcome.foreseen, slow.epochs) == ("gain", 0)
    assert isinstance(_attempted(GOOD, fast, 0.05, stopping=None).outcome, Finished)
    assert fast.epochs == 4


def test_the_reference_is_never_refused_nor_stopped() -> None:
    """Trial 0 runs to its end whatever is known of it."""
    training = Training()
    assert isinstance(_attempted(LIMITED, training, 9.9, number=0).outcome, Finished)
    assert training.epochs == 4


def test_a_trial_below_its_bar_is_stopped_with_the_reason() -> None:
    """After a rung the trial ends, and its outcome carries the judge's sentence instead of the trainer's."""
    training = Training()
    found = _attempted(_with_curves(GOOD), training, 0.2)
    assert isinstance(found.outcome, Stopped)
    assert training.epochs < 4
    assert "it would have to end above 95.0 %" in found.outcome.reason
    assert found.outcome.expected is not None
    assert found.outcome.expected < 0.95
    assert found.spared_at is None


def test_a_spared_trial_goes_on_and_is_marked() -> None:
    """With all trials spared, the one that would be stopped runs to its end and notes when it would have been."""
    training = Training()
    found = _attempted(_with_curves(GOOD), training, 0.2, stopping=Stopping(spared=1.0))
    assert isinstance(found.outcome, Finished)
    assert training.epochs == 4
    assert found.spared_at in {1, 2}


def test_without_stopping_every_trial_goes_on() -> None:
    """Where nobody judges, a poor trial is trained to its end."""
    training = Training()
    assert isinstance(_attempted(_with_curves(GOOD), training, 0.2, stopping=None).outcome, Finished)
    assert training.epochs == 4


@pytest.mark.parametrize("known", [None, "raises"])
def test_a_plan_of_which_nothing_is_known_is_tried(known: str | None) -> None:
    """Without a probe, or with one that fails, the trial runs and tells itself what is wrong with it."""

    def broken(_: TrialPlan) -> Mapping[str, float]:
        raise RuntimeError("no such operator")

    training = Training()
    stopping = Stopping(spared=0.0)
    attempt = Attempt(lambda: LIMITED, 20, plan(), known=broken if known else None, stopping=stopping)
    found = attempt.ended(attempt.refused or training(20, plan(), attempt.keep_going))
    assert isinstance(found.outcome, Finished)
    assert not found.known


def _with_curves(run: RunRecord) -> RunRecord:
    """Return the run with the curve of a good training at every trial."""
    curve = tuple(
        EpochScore(epoch=epoch, train_loss=0.1, accuracy=0.9 + epoch / 100, seconds=1.0) for epoch in range(1, 13)
    )
    trials = tuple(replace(trial, outcome=replace(outcome, curve=curve)) for trial, outcome in run.finished())
    return replace(run, trials=trials)
