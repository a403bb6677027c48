"""Plots: axes, marks, texts, colours; and what lower precision gained."""

import html
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_runs import finished, objectives, plan, realistic_run, record, run_of

from beats_search.pareto import front_of_run, hypervolume_of_run
from beats_search.records.outcome import EpochScore
from beats_search.records.part import Part
from beats_search.report.axes import focused_axis, whole_axis
from beats_search.report.comparison import compare
from beats_search.report.figures import (
    comparison_figure,
    hypervolumes,
    pareto_figure,
    plotted,
    unseen,
)
from beats_search.report.hover import hover_text
from beats_search.report.palette import DARK, LIGHT, darker
from beats_search.report.precision import missed_bits, rivalries, surprises
from beats_search.report.sparkline import HEIGHT, WIDTH, sparkline
from beats_search.report.traces import Figure, Trace

POSITIVE = st.lists(st.floats(min_value=1e-3, max_value=1e4), min_size=1)
SHARES = st.lists(st.floats(min_value=0, max_value=1), min_size=1)


def trace_of(figure: Figure, name: str) -> Trace:
    """Return the trace of a figure by its name."""
    return next(trace for trace in figure.data if trace.name == name)


@given(POSITIVE)
def test_a_whole_axis_shows_every_value(values: list[float]) -> None:
    """Every value lies within the ends of the axis, and the axis is logarithmic from a spread of five on."""
    axis = whole_axis("Latency", values)
    assert axis.low is not None
    assert axis.high is not None
    assert axis.low < min(values) <= max(values) < axis.high
    assert axis.log == (max(values) / min(values) > 5)


@given(SHARES, SHARES)
def test_a_focused_axis_shows_what_leads_and_half_its_span_below(shares: list[float], leading: list[float]) -> None:
    """The leading values are shown and take at least half of the axis, however low the others fall."""
    axis = focused_axis("Accuracy", [*shares, *leading], leading)
    assert axis.low is not None
    assert axis.high is not None
    assert axis.low < min(leading) <= max([*shares, *leading]) < axis.high
    top = max([*shares, *leading])
    assert min(leading) - axis.low <= max(max(leading) - min(leading), 0.02) / 2 + 1e-9
    assert axis.high - top < 0.13


@given(st.floats(min_value=1e-3, max_value=1e3), st.floats(min_value=6, max_value=1e5))
def test_ticks_of_a_log_axis_lie_on_it(low: float, factor: float) -> None:
    """A logarithmic axis is labelled, at least twice, within its own range."""
    layout = whole_axis("Latency", [low, low * factor]).layout()
    first, last = layout["range"]
    assert len(layout["tickvals"]) >= 2
    assert all(first <= math.log10(tick) <= last for tick in layout["tickvals"])


def test_front_points_and_dominated_points_are_apart() -> None:
    """Each finished trial is one point: in the front, among the dominated, or the reference."""
    run = realistic_run()
    figure = pareto_figure(run)
    parts = {name: set(trace_of(figure, name).customdata) for name in ("Pareto front", "dominated", "reference")}
    assert parts["reference"] == {0}
    assert parts["Pareto front"] == {trial.number for trial, _ in front_of_run(run)} - {0}
    assert sorted(number for part in parts.values() for number in part) == [trial.number for trial, _ in run.finished()]


def test_the_attainment_line_is_what_was_reached_at_each_cost() -> None:
    """At the latency of each trial the step line stands at the best accuracy of all trials that are as fast."""
    run = replace(realistic_run(), constraints=())
    (line,) = [trace for trace in pareto_figure(run).data if trace.mode == "lines"]
    steps = list(zip(line.x, line.y, strict=True))
    for _, outcome in run.finished():
        cost = outcome.latency.median_ms
        reached = max(other.accuracy for _, other in run.finished() if other.latency.median_ms <= cost)
        assert [merit for at, merit in steps if at <= cost][-1] == reached
    assert line.line.shape == "hv"


def test_error_bars_end_where_the_intervals_end() -> None:
    """A point of the front carries its 95 % intervals along both axes."""
    run = run_of(record(1, finished(0.9, 0.1)))
    _, outcome = run.finished()[0]
    front = trace_of(pareto_figure(run), "Pareto front")
    assert front.x[0] + front.error_x.array[0] == pytest.approx(outcome.latency.interval_ms.high)
    assert front.x[0] - front.error_x.arrayminus[0] == pytest.approx(outcome.latency.interval_ms.low)
    assert front.y[0] + front.error_y.array[0] == pytest.approx(outcome.accuracy_interval.high)


def test_axes_follow_the_objectives() -> None:
    """Accuracy stands upright wherever it is an objective, against the first other one."""
    names = [
        tuple(objective.name for objective in plotted(replace(run_of(), objectives=objectives(*over))))
        for over in (("latency_ms", "accuracy"), ("accuracy", "size_kb", "macs"), ("size_kb", "latency_ms"))
    ]
    assert names == [("latency_ms", "accuracy"), ("size_kb", "accuracy"), ("size_kb", "latency_ms")]


@pytest.mark.parametrize("over", [("size_kb", "latency_ms"), ("accuracy", "macs")])
def test_any_two_objectives_can_be_drawn(over: tuple[str, str]) -> None:
    """A front over other objectives than accuracy and latency has its points and its line."""
    figure = pareto_figure(run_of(record(0, finished(0.9, 0.4, 90.0)), record(1, finished(0.8, 0.1, 20.0)), over=over))
    assert [trace.mode for trace in figure.data] == ["markers", "lines", "markers+text", "markers+text", "markers"]


def test_a_third_objective_is_a_colour_and_ends_the_line() -> None:
    """With three objectives the size colours the front, and no line pretends that the front is one."""
    run = run_of(
        record(0, finished(0.9, 0.4, 90.0)),
        record(1, finished(0.8, 0.1, 20.0)),
        over=("accuracy", "latency_ms", "size_kb"),
    )
    figure = pareto_figure(run)
    assert list(trace_of(figure, "Pareto front").marker.color) == [20.0]
    assert "lines" not in [trace.mode for trace in figure.data]


def test_trials_out_of_sight_are_counted() -> None:
    """A hopeless trial does not flatten the front; it is counted as unseen."""
    run = run_of(record(0, finished(0.98, 0.4)), record(1, finished(0.97, 0.1)), record(2, finished(0.1, 0.2)))
    assert unseen(run) == 1


def test_hover_texts_are_shown_as_written() -> None:
    """Tags in a plan are text to plotly, not marks, and the words of the plan are there."""
    named = replace(plan(), model=Part(name="<b>&lt;a href='x'>", settings=()))
    run = run_of(record(3, finished(), named))
    text = hover_text(run, *run.finished()[0])
    assert "<a" not in text
    assert "<b>&lt;a href='x'>; 12 epochs of sgd" in html.unescape(text.replace("<br>", " "))
    assert text.startswith("<b>Trial 3</b>")


def test_hover_tells_what_was_asked_and_what_ran() -> None:
    """Where 8 bits were asked for and fp32 ran, the point says both; and whether its timing settled."""
    outcome = finished(as_="fp32")
    unsettled = replace(outcome, latency=replace(outcome.latency, settled=False))
    run = run_of(record(0, finished(0.9, 0.4)), record(3, unsettled, plan(bits=8)))
    text = hover_text(run, *run.finished()[1])
    assert "ran in fp32 (8 bits asked for)" in text
    assert "timing did not settle" in text
    assert "2.0× the reference's speed" in text


def test_hypervolume_grows_as_the_runs_prefixes_do() -> None:
    """The value after each trial is the hypervolume of the run that ended there."""
    run = realistic_run()
    prefixes = [replace(run, trials=run.trials[: count + 1]) for count in range(len(run.trials))]
    assert hypervolumes(run) == pytest.approx([hypervolume_of_run(prefix) for prefix in prefixes])


def test_every_light_colour_has_one_dark_one() -> None:
    """The page turns a figure dark colour by colour, so no two marks may share a light colour."""
    assert LIGHT.keys() == DARK.keys()
    assert len(set(LIGHT.values())) == len(LIGHT)
    assert len(darker()) == 2 * len(LIGHT)


def test_several_fronts_share_a_plot_and_a_legend() -> None:
    """Each run is a line and a named set of points, its name safe for plotly."""
    runs = [realistic_run(1), realistic_run(2, name="<b>two</b>")]
    figure = comparison_figure(runs)
    assert [trace.name for trace in figure.data if trace.name] == ["digits", "&lt;b&gt;two&lt;/b&gt;"]
    assert figure.layout.showlegend


def test_compared_hypervolumes_share_their_worst_corner() -> None:
    """Hypervolumes of runs are comparable: all are taken from the worst reference point among them."""
    run = realistic_run()
    other = replace(realistic_run(1), reference_point={"accuracy": 0.05, "latency_ms": 0.3})
    corner = {"accuracy": 0.05, "latency_ms": run.reference_point["latency_ms"]}
    expected = [hypervolume_of_run(replace(each, reference_point=corner)) for each in (run, other)]
    assert [each.hypervolume for each in compare([run, other], ["a", "b"]).runs] == pytest.approx(expected)


def test_runs_of_different_objectives_are_not_drawn_together() -> None:
    """Fronts over different objectives have no common plot, and the page says so."""
    comparison = compare([run_of(), run_of(over=("accuracy", "size_kb"))], ["a", "b"])
    assert comparison.figure is None
    assert "different objectives" in comparison.notes[0]


def test_runs_from_different_machines_are_told() -> None:
    """Latencies of two machines stand side by side only under a warning that names what differs."""
    run = realistic_run()
    comparison = compare([run, replace(run, environment={**run.environment, "cpu": "another"})], ["a", "b"])
    assert comparison.notes == ("The runs were measured in different environments (cpu): latencies may not compare.",)


def test_int8_that_is_slower_than_fp32_is_told() -> None:
    """Of two precisions of one structure the gain is their ratio of latency, the worst first."""
    run = run_of(
        record(0, finished(latency_ms=0.4), plan(width=64)),
        record(1, finished(latency_ms=0.1, as_="int8"), plan(width=64, bits=8, lr=0.2)),
        record(2, finished(latency_ms=0.03), plan(width=16)),
        record(3, finished(latency_ms=0.045, as_="int8"), plan(width=16, bits=8)),
        record(4, finished(latency_ms=0.02, as_="int8", macs=400_000), plan(width=16, ratio=0.5, bits=8)),
    )
    slower, faster = rivalries(run)
    assert (slower.structure, slower.low_trials, slower.full_trials) == ("resnet width 16", (3,), (2,))
    assert slower.gain == pytest.approx(0.03 / 0.045)
    assert faster.gain == pytest.approx(4)
    assert slower.clear


def test_pruning_that_removed_nothing_is_the_same_structure() -> None:
    """A ratio that rounding left without effect is compared with the unpruned network."""
    run = run_of(
        record(0, finished(latency_ms=0.1), plan(width=16)),
        record(1, finished(latency_ms=0.05, as_="int8"), plan(width=16, ratio=0.1, bits=8)),
    )
    (rivalry,) = rivalries(run)
    assert rivalry.structure == "resnet width 16"


def test_overlapping_latencies_are_no_clear_verdict() -> None:
    """Two precisions whose intervals overlap are not called apart."""
    run = run_of(record(0, finished(latency_ms=0.1)), record(1, finished(latency_ms=0.101, as_="int8"), plan(bits=8)))
    assert not rivalries(run)[0].clear


def test_precision_that_did_not_run_is_told_by_trial() -> None:
    """Trials whose kernels ran in another precision than was asked for are listed together."""
    run = run_of(
        record(1, finished(as_="fp32"), plan(bits=8)),
        record(2, finished(as_="int8"), plan(bits=8)),
        record(3, finished(as_="int8"), plan(bits=4)),
        record(5, finished(as_="int8"), plan(bits=4)),
    )
    assert surprises(run) == (
        "4 bits were asked for, and the kernels ran in int8: trials 3, 5.",
        "8 bits were asked for, and the kernels ran in fp32: trial 1.",
    )


@pytest.mark.parametrize(
    ("bits", "linear", "ran", "missed"),
    [
        ("mixed", 32, "int8", ()),
        ("mixed", 32, "fp32", ("mixed bits",)),
        (32, 4, "int4", ()),
        (32, 4, "mixed", ()),
        (32, 4, "fp32", ("linear layers in 4 bits",)),
        (32, 8, "int8", ()),
        (8, 4, "int8", ("linear layers in 4 bits",)),
        (4, 4, "fp32", ("4 bits", "linear layers in 4 bits")),
    ],
)
def test_all_that_asks_for_fewer_bits_is_held_against_what_ran(
    bits: int | str, linear: int, ran: str, missed: tuple[str, ...]
) -> None:
    """Bits of all layers, of each layer its own, and those of the runtime's linear layers."""
    quantized = Part(name="quantization", settings=(("bits", bits),))
    runtime = Part(name="onnxruntime", settings=(("linear_bits", linear),))
    asked = replace(plan(), compression=(quantized,), runtime=runtime)
    assert missed_bits(asked, finished(as_=ran)) == missed


@given(st.lists(st.one_of(st.floats(min_value=0, max_value=1), st.just(math.nan)), max_size=30))
def test_a_sparkline_stays_in_its_box(accuracies: list[float]) -> None:
    """Every finite score is a point within the box; fewer than two make no line."""
    scores = [EpochScore(epoch=n, train_loss=1.0, accuracy=a, seconds=1.0) for n, a in enumerate(accuracies, 1)]
    points = [tuple(map(float, point.split(","))) for point in sparkline(scores).split()]
    finite = sum(map(math.isfinite, accuracies))
    assert len(points) == (finite if finite > 1 else 0)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in points)


def test_figures_are_json_without_nan() -> None:
    """A browser can parse what plotly writes for a figure."""
    document = json.loads(pareto_figure(realistic_run()).to_json(), parse_constant=pytest.fail)
    assert {"data", "layout"} <= set(document)
