"""The benchmark of real searches: its arithmetic and its plot. Nothing is trained."""

import math
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

import search_efficiency_stopping
from beats_search.records.part import Part
from beats_search.records.plain import to_plain
from beats_search.records.plan import TrainingPlan, TrialPlan
from search_efficiency_arms import Search, Tried
from search_efficiency_digits import compared
from search_efficiency_latencies import structure
from search_efficiency_plot import Line, plot
from search_efficiency_real import course, summarize
from search_efficiency_stopping import Sitting

PLAN = TrialPlan(
    dataset=Part(name="mnist"),
    model=Part(name="mlp", settings=(("width", 8),)),
    training=TrainingPlan(epochs=2, lr=0.1),
)
WIDE = replace(PLAN, model=Part(name="mlp", settings=(("width", 16),)))
RATIOS = {structure(PLAN): 0.1, structure(WIDE): 0.6}


def tried(at_s: float, plan: TrialPlan, accuracy: float | None) -> Tried:
    """Return a trial that ended then; without an accuracy it was stopped."""
    ended = "Stopped" if accuracy is None else "Finished"
    return Tried(at_s=at_s, ended=ended, plan=to_plain(plan), accuracy=accuracy, latency_ms=accuracy)


def searched(arm: str, budget_s: float, *found: Tried) -> Search:
    """Return a search that tried this."""
    return Search(arm=arm, seed=0, budget_s=budget_s, tried=found)


def test_latency_is_that_of_the_last_timing() -> None:
    """A point is worth its accuracy over guessing times its latency below the corner; a stopped trial nothing."""
    found = course(searched("a", 9.0, tried(1.0, PLAN, 0.6), tried(2.0, WIDE, None), tried(3.0, WIDE, 0.8)), RATIOS)
    assert [at for at, _ in found] == [1.0, 2.0, 3.0]
    assert [share for _, share in found] == pytest.approx([0.5 * 1.0, 0.5 * 1.0, 0.5 * 1.0 + 0.2 * 0.5])


def test_the_whole_is_the_front_of_all_searches_together() -> None:
    """An arm that finds half of the front never reaches 95 %, and counts as its budget."""
    fast = searched("frontier", 10.0, tried(2.0, PLAN, 0.9), tried(4.0, WIDE, 1.0))
    slow = searched("tpe", 80.0, tried(3.0, WIDE, 1.0), tried(50.0, WIDE, 0.9))
    ours, peer = summarize([fast, slow], RATIOS, 0.1)
    assert ours["seconds"]["0.95"]["median"] == 4.0
    assert ours["final_share"] == [pytest.approx(1.0)]
    assert peer["seconds"]["0.95"] == {"median": 80.0, "low": 80.0, "high": 80.0, "reached": 0, "of": 1}
    assert peer["times_frontier"] == 20.0


def test_accuracy_counts_from_the_corner_on() -> None:
    """What is worse than the corner is worth nothing."""
    search = searched("a", 9.0, tried(1.0, PLAN, 0.6), tried(2.0, WIDE, 0.8))
    assert [share for _, share in course(search, RATIOS, least=0.7)] == pytest.approx([0.0, 0.5 * 0.1])


def test_the_shipped_search_is_held_against_what_the_plain_one_ended_with() -> None:
    """Seconds count until as much was known; a search that never knew as much has no finite share."""
    searches = [
        replace(searched("shipped", 9.0, tried(2.0, WIDE, 0.9), tried(5.0, PLAN, 0.9)), seed=1),
        replace(searched("plain", 40.0, tried(20.0, PLAN, 0.9), tried(40.0, WIDE, 0.8)), seed=1),
        replace(searched("shipped", 9.0, tried(2.0, WIDE, 0.9)), seed=2),
        replace(searched("plain", 40.0, tried(20.0, PLAN, 0.9)), seed=2),
    ]
    first, second = compared(searches, RATIOS)["seeds"]
    assert (first["shipped_seconds"], first["plain_seconds"], first["share"]) == (5.0, 40.0, 0.125)
    assert first["plain_last_gain_seconds"] == 20.0
    assert second["share"] == math.inf


def test_what_stops_lost_and_saved_is_held_against_their_twins() -> None:
    """The loss is a share of the hypervolume without stops; a twin's seconds count from where the trial was stopped."""
    stopping = Sitting(
        search=searched("random_search", 9.0, tried(1.0, WIDE, 0.9), tried(2.0, PLAN, None)),
        claimed_s=6.0,
        seconds_s=9.0,
        epochs={"wide": (1.0, 1.0, 2.0), "narrow": (3.0,)},
        stopped=("narrow",),
    )
    whole = replace(
        stopping,
        search=searched("random_search", 9.0, tried(1.0, WIDE, 0.9), tried(9.0, PLAN, 0.9)),
        seconds_s=16.0,
        epochs={"wide": (1.0, 1.0, 2.0), "narrow": (3.0, 4.0, 3.0)},
        stopped=(),
    )
    found = search_efficiency_stopping.compared([(stopping, whole)], RATIOS)
    (row,) = found["seeds"]
    assert found["lost"]["mean"] == pytest.approx(1 - (0.8 * 0.5) / (0.8 * 1.0))
    assert (row["stopped"], row["twins"], row["twins_s"], row["claimed_s"]) == (1, 1, 7.0, 6.0)
    assert "asked: at most 1%" in search_efficiency_stopping.lines({"random_search": found})


def test_structure_is_all_but_the_training() -> None:
    """Rates, seeds and settings without an effect do not tell files apart; widths and bits do."""
    idle = Part(name="quantization", settings=(("bits", 32), ("average_bits", 3.0)))
    plain = replace(PLAN, compression=(Part(name="quantization", settings=(("bits", 32),)),))
    assert structure(replace(PLAN, seed=3, training=replace(PLAN.training, lr=1.0))) == structure(PLAN)
    assert structure(replace(PLAN, compression=(idle,))) == structure(plain)
    assert structure(plain) != structure(PLAN)
    assert structure(WIDE) != structure(PLAN)


def test_the_plot_is_a_drawing_of_every_line() -> None:
    """It is well-formed, names every line as it is, and draws higher shares higher."""
    drawn = plot(
        [Line(name="a < b", points=((1.0, 0.5), (100.0, 1.0))), Line(name="c", points=((1.0, 0.2),))], "s", "%"
    )
    root = ET.fromstring(drawn)  # noqa: S314 - our own text
    names = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"a < b", "c"} <= set(names)
    first, second = [each.attrib["points"] for each in root.iter("{http://www.w3.org/2000/svg}polyline")]
    heights = [float(point.split(",")[1]) for point in first.split()]
    assert heights[1] < heights[0] == float(second.split(",")[1])
