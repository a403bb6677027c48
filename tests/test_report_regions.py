"""Updates by region: which trials are shown, in which order, and what is told of each."""

import html
import json
import math
from dataclasses import replace
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_runs import beats_run, finished, in_regions, plan, realistic_run, record, run_of

from beats_search.pareto import front_of_run
from beats_search.records.outcome import EpochScore, Failed, RegionScore, Stopped
from beats_search.records.part import Part
from beats_search.records.plan import AccumulationPlan, TrialPlan
from beats_search.records.run import TrialRecord
from beats_search.report.answer import answer
from beats_search.report.regions import MOST_CELLS, MOST_TRIALS, RegionSection, region_section
from beats_search.report.words import plan_in_words

COUNTS = st.integers(min_value=0, max_value=40)


def section_of(*trials: TrialRecord, named: int | None = None) -> RegionSection:
    """Return the section of a run of these trials, which must have one."""
    section = region_section(run_of(*trials), named)
    assert section is not None
    return section


def numbers_of(section: RegionSection) -> list[int]:
    """Return the trials that a section can show, in their order."""
    return [int(label.removeprefix("Trial ").replace(":", " ").split()[0]) for label in section.labels]


def trials_of(section: RegionSection) -> list[dict[str, Any]]:
    """Return the trials of a section as the script of the page reads them."""
    read: list[dict[str, Any]] = json.loads(section.trials)
    return read


def score(*fires: int, epoch: int = 1, micro_batches: int = 40, skipped: int = 0) -> EpochScore:
    """Return an epoch in which the regions r0, r1, … were updated so many times."""
    regions = tuple(
        RegionScore(
            name=f"r{place}", fires=count, agreement=1.23456, waited=micro_batches / count if count else math.nan
        )
        for place, count in enumerate(fires)
    )
    return EpochScore(
        epoch=epoch,
        train_loss=1.0,
        accuracy=0.5,
        seconds=1.0,
        micro_batches=micro_batches,
        updates=max(fires, default=0),
        skipped=skipped,
        regions=regions,
    )


def told(number: int, *curve: EpochScore) -> TrialRecord:
    """Return a finished trial with this curve."""
    return record(number, replace(finished(), curve=curve))


def test_a_run_that_tells_of_no_region_has_no_section() -> None:
    """Plain training, epochs without a micro-batch, and failures have nothing to show."""
    empty = told(1, score(0, 0, micro_batches=0))
    assert region_section(run_of()) is None
    assert region_section(realistic_run()) is None
    assert region_section(run_of(empty, record(2, Failed(stage="train", reason="diverged")))) is None


def test_the_trial_of_the_answer_is_shown_first() -> None:
    """Where the headline's trial tells of its regions, it is the one that the page shows."""
    run = beats_run()
    named = answer(run).trial
    section = region_section(run, named)
    assert section is not None
    assert numbers_of(section)[0] == named


def test_trials_come_front_first_then_finished_then_stopped_each_by_accuracy() -> None:
    """Without the answer's trial the most accurate of the front leads, and a stopped trial comes last."""
    stopped = record(5, Stopped(epoch=4, reason="no chance", curve=(replace(score(3), accuracy=0.999),)))
    trials = (
        in_regions(record(1, finished(0.95, 0.1))),
        in_regions(record(2, finished(0.98, 0.2))),
        in_regions(record(3, finished(0.90, 0.3))),
        in_regions(record(4, finished(0.97, 0.3))),
        stopped,
        record(6, finished(0.96, 0.05)),
    )
    section = section_of(*trials, named=6)
    assert {trial.number for trial, _ in front_of_run(run_of(*trials))} == {2, 6}
    assert numbers_of(section) == [2, 4, 1, 3, 5]
    assert [label.partition(":")[0] for label in section.labels[::4]] == ["Trial 2 (on the front)", "Trial 5 (stopped)"]


def test_a_label_tells_accuracy_and_accumulation() -> None:
    """A trial is chosen by its number, its accuracy and how it accumulated."""
    trial = in_regions(record(1, finished(0.95, 0.1)))
    window = trial.plan.training.accumulation.window
    (label,) = section_of(trial).labels
    assert label.startswith(f"Trial 1 (on the front): accuracy 0.950; window {window}, trigger ")
    assert label.endswith(", local error 0.2")


@given(st.lists(st.tuples(COUNTS, COUNTS), min_size=1, max_size=5), st.integers(min_value=0, max_value=3))
def test_facts_are_sums_over_epochs_and_regions(fires: list[tuple[int, int]], skipped: int) -> None:
    """Saved is what plain training would have updated, every region at every micro-batch, and was not."""
    curve = [score(*pair, epoch=epoch, skipped=skipped) for epoch, pair in enumerate(fires, 1)]
    section = section_of(told(1, *curve))
    facts = dict(section.facts)
    made, plain = sum(map(sum, fires)), 2 * 40 * len(fires)
    assert facts["Region updates"] == f"{made} of {plain}"
    assert float(facts["Updates saved"].removesuffix(" %")) == pytest.approx(100 * (plain - made) / plain, abs=0.51)
    assert (facts["Micro-batches"], facts["Skipped"]) == (str(40 * len(fires)), str(skipped * len(fires)))
    assert facts["Optimizer steps"] == str(sum(map(max, fires)))
    assert trials_of(section)[0]["facts"] == list(facts.values())


@given(st.lists(st.tuples(COUNTS, COUNTS), min_size=1, max_size=5))
def test_mean_agreement_and_wait_are_means_over_all_updates(fires: list[tuple[int, int]]) -> None:
    """Each update of a region counts once, whatever its epoch; without an update there is a dash."""
    agreed = [
        replace(it, regions=tuple(replace(region, agreement=region.fires + 0.5) for region in it.regions))
        for it in (score(*pair, epoch=epoch) for epoch, pair in enumerate(fires, 1))
    ]
    facts = dict(section_of(told(1, *agreed)).facts)
    updates = [count for pair in fires for count in pair for _ in range(count)]
    told_means = facts["Mean agreement"], facts["Mean wait (micro-batches)"]
    if not updates:
        assert told_means == ("–", "–")
    else:
        means = fmean(count + 0.5 for count in updates), fmean(40 / count for count in updates)
        assert tuple(map(float, told_means)) == pytest.approx(means, rel=0.0051)


OWN = "Each region has its own trigger: it is updated as soon as its agreement reaches 1.6 or {}."
SHARED = "All regions share one trigger: they are updated together as soon as their common agreement reaches 2 or {}."
WINDOW = "The window alone decides: all regions are updated together whenever {}."
ALWAYS = "The window alone decides: all regions are updated at every micro-batch."


@pytest.mark.parametrize(
    ("accumulation", "rule"),
    [
        (AccumulationPlan(window=8, trigger=1.6), OWN),
        (AccumulationPlan(window=8, trigger=2, scope="global"), SHARED),
        (AccumulationPlan(window=8, local_error=0.2, scope="global"), WINDOW),
        (AccumulationPlan(window=1, trigger=1.6), ALWAYS),
    ],
    ids=["region", "global", "never", "window of one"],
)
def test_the_rule_of_updates_is_that_of_the_plan(accumulation: AccumulationPlan, rule: str) -> None:
    """What is said of updates fits the trigger and the scope of each trial, on the page and in its data."""
    trial = told(1, score(3))
    training = replace(trial.plan.training, accumulation=accumulation)
    drawn = replace(trial, plan=replace(trial.plan, training=training))
    section = section_of(drawn)
    assert section.words.rule == rule.format("the window of 8 micro-batches is full")
    assert trials_of(section)[0]["words"]["rule"] == section.words.rule
    assert section.words.plan == f"Plan: {plan_in_words(drawn.plan)}."


def recovered(ratio: float, bits: int, epochs: int = 2) -> TrialPlan:
    """Return a plan that prunes and quantizes, and trains again for so many epochs after each."""
    recovery = ("recovery_epochs", epochs)
    pruning = Part(name="channel_pruning", settings=(("ratio", ratio), recovery))
    return replace(plan(), compression=(pruning, Part(name="quantization", settings=(("bits", bits), recovery))))


@pytest.mark.parametrize(
    ("of", "says"),
    [
        (recovered(0.5, 32), "Recovery epochs after channel_pruning are not counted."),
        (recovered(0.5, 8), "Recovery epochs after channel_pruning and quantization are not counted."),
        (recovered(0.0, 32), ""),
        (recovered(0.5, 8, epochs=0), ""),
        (replace(plan(), compression=()), ""),
    ],
)
def test_recovery_is_said_to_be_left_out_where_there_was_one(of: TrialPlan, says: str) -> None:
    """Techniques that do something and train again are named; a stopped trial never came so far."""
    stopped = record(1, Stopped(epoch=1, reason="slow", curve=(score(3),)), of)
    assert section_of(replace(told(1, score(3)), plan=of)).words.recovery == says
    assert section_of(stopped).words.recovery == ""


def test_a_trial_is_sent_as_a_row_per_region_and_a_column_per_epoch() -> None:
    """The columns hold what the scores hold, rounded to 3 digits; means of no update are null."""
    (trial,) = trials_of(section_of(told(1, score(12, 0), score(7, 40, epoch=2))))
    assert trial["names"] == ["r0", "r1"]
    assert (trial["epochs"], trial["micro_batches"]) == ([1, 2], [40, 40])
    assert trial["fires"] == [[12, 7], [0, 40]]
    assert trial["waited"] == [[3.33, 5.71], [None, 1.0]]
    assert trial["agreement"] == [[1.23, 1.23], [1.23, 1.23]]


def test_a_region_that_an_epoch_does_not_tell_of_is_null_there() -> None:
    """A region that appears later has no number in the epochs before it."""
    (trial,) = trials_of(section_of(told(1, score(12), score(7, 9, epoch=2))))
    assert [trial[column][1][0] for column in ("fires", "agreement", "waited")] == [None] * 3


@given(st.lists(COUNTS, min_size=1, max_size=8))
def test_colours_reach_as_far_as_the_largest_share(fires: list[int]) -> None:
    """No share is above the end of the scale, and the end is less than 5 % above the largest."""
    section = section_of(told(1, score(*fires)))
    (cells,) = json.loads(section.figure)["data"]
    largest = max(fires) / 40
    assert largest <= section.most <= max(0.05, largest + 0.05)
    assert (cells["zmin"], cells["zmax"]) == (0, section.most)


def test_trials_beyond_the_first_few_are_counted_not_sent() -> None:
    """A page holds the first 24 trials and says how many it leaves out."""
    trials = [in_regions(record(number, finished(0.9 - number / 1000, 0.2))) for number in range(1, MOST_TRIALS + 4)]
    section = section_of(*trials)
    assert numbers_of(section) == list(range(1, MOST_TRIALS + 1))
    assert len(trials_of(section)) == MOST_TRIALS
    assert section.note == "Left out, to keep the page light: 3 trials."
    assert section_of(*trials[:MOST_TRIALS]).note == ""


@pytest.mark.parametrize(("cells", "shown"), [(MOST_CELLS // 2, 2), (MOST_CELLS // 2 + 1, 1), (MOST_CELLS + 1, 1)])
def test_large_trials_are_limited_by_their_cells(cells: int, shown: int) -> None:
    """Trials are sent as long as their regions × epochs fit together; the first one always is."""
    curve = (score(*([1] * cells)),)
    section = section_of(*(told(number, *curve) for number in (1, 2, 3)))
    assert len(section.labels) == shown


@pytest.mark.parametrize(("epochs", "tick"), [(1, 1), (12, 1), (13, 2), (60, 5), (100, 10), (250, 50)])
def test_epochs_are_labelled_at_whole_steps(epochs: int, tick: int) -> None:
    """At most 12 epochs are labelled, a step of 1, 2, 5, 10, … apart."""
    curve = [score(3, epoch=epoch) for epoch in range(1, epochs + 1)]
    assert trials_of(section_of(told(1, *curve)))[0]["epoch_tick"] == tick


@given(st.text(alphabet="abc<>é.'", max_size=100))
def test_a_name_is_shortened_to_fit_its_row(name: str) -> None:
    """Names too long for their place keep their ends and lose their middle; no tag is left for plotly."""
    named = replace(score(3), regions=(RegionScore(name=name, fires=3, agreement=1.0, waited=6.0),))
    (trial,) = trials_of(section_of(told(1, named)))
    for column, length in (("names", 60), ("ticks", 22), ("narrow_ticks", 12)):
        label = html.unescape(trial[column][0])
        start, _, end = label.partition("…")
        assert not set(trial[column][0]) & set("<>")
        assert label == name if len(name) <= length else len(label) == length
        assert name.startswith(start)
        assert name.endswith(end)


def test_a_trial_without_an_accuracy_comes_last() -> None:
    """A stopped trial whose last accuracy is no number is listed all the same, with a dash."""
    lost = record(1, Stopped(epoch=1, reason="slow", curve=(replace(score(3), accuracy=math.nan),)))
    other = record(2, Stopped(epoch=1, reason="slow", curve=(score(3),)))
    assert section_of(lost, other).labels == (
        "Trial 2 (stopped): accuracy 0.500",
        "Trial 1 (stopped): accuracy –",
    )
