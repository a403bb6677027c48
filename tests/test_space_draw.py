"""Drawing: any values within bounds give a plan, and the recorded values give the same plan again."""

import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import space_toy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from space_toy import SMALL, WHOLE, read

from beats_search.records.part import Part, Scalar
from beats_search.records.plain import from_plain, to_plain
from beats_search.records.plan import TrialPlan
from beats_search.search.domain import domain_of
from beats_search.space import ranges
from beats_search.space.draw import Replay, count_plans, draw, grid_points, knob_in_words, knobs, reference_plan
from beats_search.space.knobs import Choice, Leaf, Range, SearchSpace


@pytest.fixture(autouse=True)
def _shelves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space_toy.install(tmp_path, monkeypatch)


@pytest.fixture
def whole(_shelves: None) -> SearchSpace:
    """Return a space with every kind of knob."""
    return read(WHOLE)


class Drawn:
    """A `Suggest` that lets hypothesis choose and records what was chosen."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data
        self.values: dict[str, Scalar] = {}

    def real(self, path: str, low: float, high: float, *, log: bool, step: float | None) -> float:
        assert not (log and step)
        steps = None if step is None else round((high - low) / step)
        numbers = st.floats(low, high) if steps is None else st.integers(0, steps).map(lambda n: low + n * (step or 0))
        return self._keep(path, self._data.draw(numbers))

    def integer(self, path: str, low: int, high: int, *, log: bool, step: int | None) -> int:
        del log
        return int(self._keep(path, self._data.draw(st.sampled_from(range(low, high + 1, step or 1)))))

    def choice(self, path: str, labels: tuple[Scalar, ...]) -> int:
        index = self._data.draw(st.integers(0, len(labels) - 1))
        self.values[path] = labels[index]
        return index

    def _keep(self, path: str, value: float) -> float:
        assert path not in self.values, "a knob is asked for once"
        self.values[path] = value
        return value


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_recorded_values_give_the_same_plan(whole: SearchSpace, data: st.DataObject) -> None:
    """Whatever is suggested within bounds is a plan, and its record replays to an equal one."""
    drawn = Drawn(data)
    plan = draw(whole, drawn)
    again = draw(whole, Replay(drawn.values))
    assert again == plan
    assert again.fingerprint() == plan.fingerprint()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_a_plan_survives_being_stored(whole: SearchSpace, data: st.DataObject) -> None:
    """A drawn plan is plain data: read back from JSON it has the same fingerprint."""
    plan = draw(whole, Drawn(data))
    assert from_plain(TrialPlan, to_plain(plan)).fingerprint() == plan.fingerprint()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_conditional_knobs_are_asked_for_only_in_their_option(whole: SearchSpace, data: st.DataObject) -> None:
    """What is recorded are the unconditional knobs and those of the chosen options."""
    drawn = Drawn(data)
    draw(whole, drawn)
    assert ("training.schedule.step.gamma" in drawn.values) == (drawn.values["training.schedule"] == "step")
    assert ("compression.1.quantization.bits" in drawn.values) == (drawn.values["compression.1"] == "quantization")
    assert set(drawn.values) <= {knob.path for knob in knobs(whole)}


def _first_values(space: SearchSpace) -> dict[str, Scalar]:
    return {knob.path: knob.low if isinstance(knob, Range) else knob.labels[0] for knob in knobs(space)}


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("model.width", 128, "model.width is one of 16 | 32 | 64, got 128"),
        ("model.depth", 4, "model.depth is in 1 … 3, got 4"),
        ("model.depth", 1.5, "model.depth is in 1 … 3, got 1.5"),
        ("model.depth", True, "model.depth is in 1 … 3, got True"),
        ("training.lr", "0.01", "training.lr is in 0.001 … 0.1 (log), got '0.01'"),
        ("training.lr", 0.2, "training.lr is in 0.001 … 0.1 (log), got 0.2"),
        ("training.optimizer.momentum", 0.4, "momentum is in 0 … 0.9 (step 0.3), got 0.4"),
        ("training.schedule", "linear", "training.schedule is one of constant | step | cosine, got 'linear'"),
        ("training.accumulation.window", True, "training.accumulation.window is one of 1 | 2 | 4, got True"),
    ],
)
def test_a_recorded_value_that_no_longer_fits_is_refused(
    whole: SearchSpace, path: str, value: Scalar, words: str
) -> None:
    """The text names the knob, what it allows and what was recorded."""
    with pytest.raises(ValueError, match=r"got") as raised:
        draw(whole, Replay({**_first_values(whole), path: value}))
    assert words in str(raised.value)


def test_a_value_that_was_not_recorded_is_missed(whole: SearchSpace) -> None:
    """A knob that is new has no recorded value."""
    values = _first_values(whole)
    del values["model.depth"]
    with pytest.raises(LookupError, match=r"there is no recorded value for model\.depth"):
        draw(whole, Replay(values))


def test_a_step_of_floats_forgives_rounding(whole: SearchSpace) -> None:
    """0.1 + 0.2 and 0.3 are the same step; the value stays as it was recorded."""
    plan = draw(whole, Replay({**_first_values(whole), "training.optimizer.momentum": 0.1 + 0.2}))
    assert plan.training.optimizer["momentum"] == 0.1 + 0.2


def test_a_whole_number_recorded_for_a_float_is_that_float(whole: SearchSpace) -> None:
    """A study may hand back 0 for 0.0; the plan is the same."""
    values = _first_values(whole)
    one, other = (draw(whole, Replay({**values, "compression.channel_pruning.ratio": ratio})) for ratio in (0, -0.0))
    assert one.fingerprint() == other.fingerprint()


class Macs:
    """Counts MACs of the toy models as width² × depth, and how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[TrialPlan] = []

    def __call__(self, plan: TrialPlan) -> int:
        self.asked.append(plan)
        settings_ = dict(plan.model.settings)
        width, depth = settings_["width"], settings_.get("depth", 1)
        assert isinstance(width, int)
        assert isinstance(depth, int)
        return width**2 * depth


def test_the_reference_is_the_largest_model_uncompressed_with_everything_else_in_the_middle(whole: SearchSpace) -> None:
    """Pins hold; model knobs take the most MACs, choices their first option, ranges their middle."""
    plan = reference_plan(whole, Macs())
    assert (plan.model["width"], plan.model["depth"]) == (32, 3)
    assert plan.compression == ()
    assert plan.runtime["threads"] == 1
    assert plan.training.schedule == Part(name="constant")
    assert plan.training.accumulation.window == 1
    assert plan.training.lr == pytest.approx(0.01)
    assert plan.training.optimizer["momentum"] == 0.6


def test_the_reference_never_counts_a_plan_twice(whole: SearchSpace) -> None:
    """MACs are asked for once per plan, uncompressed."""
    macs = Macs()
    reference_plan(whole, macs)
    prints = [plan.fingerprint() for plan in macs.asked]
    assert len(prints) == len(set(prints))
    assert all(plan.compression == () for plan in macs.asked)


def test_a_fixed_model_is_never_counted() -> None:
    """Without open knobs of the model there is nothing to compare."""
    macs = Macs()
    text = SMALL.replace("mlp", "{name: mlp, width: {choice: [16, 32]}}") + "reference: {model.width: 16}\n"
    assert reference_plan(read(text), macs).model["width"] == 16
    assert macs.asked == []


def test_the_reference_looks_into_the_options_of_a_choice_of_models() -> None:
    """A model that is larger only with its own knobs at their largest is found."""
    text = SMALL.replace(
        "mlp", "{choice: [{name: cnn, width: 40}, {name: mlp, width: {choice: [41, 64]}, depth: {low: 1, high: 4}}]}"
    )
    plan = reference_plan(read(text), Macs())
    assert (plan.model.name, plan.model["width"], plan.model["depth"]) == ("mlp", 64, 4)


def test_what_does_not_change_the_macs_stays_at_its_default() -> None:
    """A knob of the model without a say in MACs keeps its first option or its middle."""
    text = SMALL.replace("mlp", "{name: mlp, activation: {choice: [gelu, relu]}, dropout: {low: 0, high: 0.5}}")
    plan = reference_plan(read(text), Macs())
    assert (plan.model["activation"], plan.model["dropout"]) == ("gelu", 0.25)


def test_a_pinned_conditional_knob_counts_where_its_option_is_chosen() -> None:
    """A pin of a choice and a pin within the option act together."""
    text = WHOLE.replace("{model.width: 32}", "{training.schedule: step, training.schedule.step.gamma: 0.5}")
    plan = reference_plan(read(text), Macs())
    assert plan.training.schedule == Part(name="step", settings=(("every", 4), ("gamma", 0.5)))
    assert plan.model["width"] == 64


def test_counting_agrees_with_drawing_every_plan() -> None:
    """The number of plans is the number of different plans that a full grid draws."""
    text = WHOLE.replace("{low: 1e-3, high: 0.1, log: true}", "0.1").replace("{low: 0, high: 0.9, step: 0.3}", "0")
    space = read(
        text.replace("ratio: {low: 0.0, high: 0.9}", "ratio: {low: 0, high: 0.9, step: 0.45}"),
        "training.schedule.step.gamma={choice: [0.1, 0.2]}",
        "training.accumulation={}",
    )
    plans = {draw(space, Replay(point)) for point in grid_points(space, 10)}
    widths, depths, schedules, ratios, layers, quantizations, threads = 3, 3, 1 + 2 + 1, 3, 2, 2 + 1, 2
    assert len(plans) == widths * depths * schedules * ratios * layers * quantizations * threads
    assert count_plans(space) == len(plans)
    idle = ratios * layers - (layers - 1)  # of a ratio of 0, the layers do not matter
    assert domain_of(space).count == widths * depths * schedules * idle * quantizations * threads


def test_a_continuous_range_makes_the_plans_countless(whole: SearchSpace) -> None:
    """One float without a step, even inside an option, and there is no number."""
    assert count_plans(whole) is None
    conditional = "training:\n  epochs: 1\n  schedule: {choice: [constant, {name: step, gamma: {low: 0, high: 1}}]}"
    assert count_plans(read(SMALL.partition("training")[0] + conditional)) is None


def test_a_space_without_knobs_is_one_plan() -> None:
    """Nothing open: one plan, one empty point."""
    assert count_plans(read(SMALL)) == 1
    assert list(grid_points(read(SMALL), 3)) == [{}]


def test_a_grid_has_every_combination_of_ends_once(whole: SearchSpace) -> None:
    """Two points a range are its ends; conditional knobs vary only where they exist."""
    points = list(grid_points(whole, 2))
    assert len(points) == len({repr(sorted(point.items())) for point in points})
    assert len(points) == 3 * 2 * 2 * 2 * (1 + 2 + 1) * 3 * 2 * 2 * 3 * 2
    assert {point["training.lr"] for point in points} == {0.001, 0.1}
    for point in points[::97]:
        draw(whole, Replay(point))


def test_a_grid_of_no_points_is_refused(whole: SearchSpace) -> None:
    """A grid needs at least one point per range, and says so before it is walked."""
    with pytest.raises(ValueError, match="at least 1 point per range, got 0"):
        grid_points(whole, 0)


@st.composite
def some_ranges(draw_: st.DrawFn) -> Range:
    """Return ranges of every kind."""
    if draw_(st.booleans()):
        low, steps = draw_(st.integers(-50, 50)), draw_(st.integers(1, 40))
        step = draw_(st.none() | st.integers(1, 7))
        return Range(path="k", low=low, high=low + steps * (step or 1), step=step, integer=True)
    low_, way = draw_(st.floats(1e-3, 10)), draw_(st.floats(1e-3, 10))
    return Range(path="k", low=low_, high=low_ + way, log=draw_(st.booleans()))


@given(knob=some_ranges(), points=st.integers(1, 60))
def test_points_of_a_range_are_its_values_in_order(knob: Range, points: int) -> None:
    """Points are allowed, rise, hold both ends, and are no more than there are values."""
    values = ranges.evenly(knob, points)
    assert all(ranges.allows(knob, value) for value in values)
    assert list(values) == sorted(set(values))
    most = ranges.size(knob)
    assert len(values) == points if most is None else len(values) <= min(points, most)
    if points > 1:
        assert (values[0], values[-1]) == (knob.low, knob.high)
    if most is not None and points >= most:
        assert len(values) >= min(most, 2)


@given(st.integers(1, 9), st.integers(1, 20))
def test_enough_points_are_all_values_of_a_stepped_range(step: int, count: int) -> None:
    """A grid with as many points as values has them all."""
    knob = Range(path="k", low=3, high=3 + count * step, step=step, integer=True)
    assert ranges.evenly(knob, count + 1) == tuple(range(3, 4 + count * step, step))


def test_steps_of_floats_are_decimal() -> None:
    """Three steps of 0.1 are 0.3, not 0.30000000000000004."""
    assert ranges.evenly(Range(path="k", low=0.0, high=0.4, step=0.1), 5) == (0.0, 0.1, 0.2, 0.3, 0.4)


def test_the_middle_of_a_logarithmic_range_is_the_geometric_mean() -> None:
    """0.01 is the middle between 0.001 and 0.1."""
    assert math.isclose(ranges.middle(Range(path="k", low=0.001, high=0.1, log=True)), 0.01)
    assert ranges.middle(Range(path="k", low=1, high=256, log=True, integer=True)) == 16


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"low": 2, "high": 1}, "low < high"),
        ({"low": math.nan, "high": 1}, "low < high"),
        ({"low": 0, "high": 1, "log": True}, "low > 0"),
        ({"low": 1, "high": 2, "log": True, "step": 1}, "not both"),
        ({"low": 1, "high": 2, "step": 0}, "step > 0"),
        ({"low": 0, "high": 1, "step": 0.3}, "leads from 0 to 0.9, not 1"),
        ({"low": 0, "high": 1e30, "step": 3e-7}, "leads from low to high exactly"),
    ],
)
def test_a_wrong_range_cannot_exist(broken: Mapping[str, float], words: str) -> None:
    """A range that exists is right; the text states the rule and the values."""
    low, high, step = broken["low"], broken["high"], broken.get("step")
    with pytest.raises(ValueError, match=r"a range") as raised:
        Range(path="k", low=low, high=high, step=step, log=bool(broken.get("log")))
    assert words in str(raised.value)


@pytest.mark.parametrize(("labels", "options"), [((), 0), (("a",), 2), ((1, True), 2), ((1, 1.0), 2), (("a", "a"), 2)])
def test_a_wrong_choice_cannot_exist(labels: tuple[Scalar, ...], options: int) -> None:
    """A choice needs a label for each of its options, and labels that a study can tell apart."""
    with pytest.raises(ValueError, match="a choice needs"):
        Choice(path="k", labels=labels, options=(Leaf(value=1),) * options)


@pytest.mark.parametrize(
    ("knob", "words"),
    [
        (Range(path="k", low=0.01, high=0.5, log=True), "0.01 … 0.5 (log)"),
        (Range(path="k", low=0.0, high=1.0, step=0.5), "0 … 1 (step 0.5)"),
        (Range(path="k", low=1, high=100_000_000, integer=True), "1 … 100000000"),
        (Choice(path="k", labels=(None, True, 2.5, "a"), options=(Leaf(value=None),) * 4), "null | true | 2.5 | a"),
    ],
)
def test_a_knob_in_words_says_what_it_allows(knob: Range | Choice, words: str) -> None:
    """Tables show a knob as a user would write its values."""
    assert knob_in_words(knob) == words
