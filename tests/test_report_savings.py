"""Savings: the page says what was not computed, and nothing where all was."""

from dataclasses import replace

from report_runs import finished, record, run_of

from beats_search.records.outcome import EpochScore, Stopped
from beats_search.report.savings import savings_in_words

CURVE = (EpochScore(epoch=1, train_loss=1.0, accuracy=0.2, seconds=2.0),)
ALL = run_of(record(0, finished()), record(1, finished(0.9)))


def test_a_run_that_computed_everything_says_nothing() -> None:
    """Without stops, refusals and reuse there is no sentence."""
    assert savings_in_words(ALL) == ()


def test_refused_plans_are_counted_by_their_reason() -> None:
    """Plans that were known to be in vain are told apart from trials that were stopped on the way."""
    refused = [Stopped(epoch=0, reason="", curve=(), foreseen=why) for why in ("limit", "limit", "gain")]
    stopped = Stopped(epoch=1, reason="", curve=CURVE)
    run = run_of(*ALL.trials, *(record(2 + n, outcome) for n, outcome in enumerate([*refused, stopped])))
    ended, never = savings_in_words(run)
    assert ended.startswith("1 trial ended before its last epoch")
    assert "14 epochs" in ended  # 12 of training and 3 of recovery, less one
    assert never.startswith("3 plans never trained")
    assert "2 because of a limit" in never


def test_a_spared_trial_that_came_in_is_a_false_stop() -> None:
    """Of two spared trials the one on the front counts as wrongly stopped."""
    good, poor = (replace(record(n, finished(share)), spared_at=1) for n, share in ((2, 0.999), (3, 0.5)))
    (sentence,) = savings_in_words(run_of(*ALL.trials, good, poor))
    assert "1 of 2 came onto the front" in sentence


def test_reused_seconds_add_up_over_trials() -> None:
    """What trials took from others is summed over their stages."""
    reused = replace(finished(), reused_seconds={"training": 30.0, "compression": 12.0})
    (sentence,) = savings_in_words(run_of(*ALL.trials, record(2, reused), record(3, reused)))
    assert sentence.startswith("1 min 24 s of training was not repeated")


def test_latencies_of_one_structure_are_told_apart_from_training() -> None:
    """Seconds of timing have a reason of their own."""
    reused = replace(finished(), reused_seconds={"training": 30.0, "measuring": 2.0})
    (sentence,) = savings_in_words(run_of(*ALL.trials, record(2, reused)))
    assert "30.0 s of training was not repeated" in sentence
    assert "; 2.0 s of timing was not repeated" in sentence
