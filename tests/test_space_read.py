"""Reading a right space: defaults, types, paths of knobs and what two spaces have in common."""

import re
from pathlib import Path

import pytest
import space_toy
from space_toy import SMALL, WHOLE, read

from beats_search.records.objective import Constraint, Objective
from beats_search.records.part import Part
from beats_search.records.plan import TrainingPlan
from beats_search.space.draw import Replay, draw, knob_in_words, knobs
from beats_search.space.durations import seconds_of
from beats_search.space.knobs import Choice, Leaf, PartNode, Range, SearchSpace


@pytest.fixture(autouse=True)
def _shelves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space_toy.install(tmp_path, monkeypatch)


def _part(space: SearchSpace, field: str) -> PartNode:
    node = dict(space.plan.fields)[field]
    assert isinstance(node, PartNode)
    return node


def _setting(space: SearchSpace, name: str) -> object:
    return dict(_part(space, "model").fields)[name]


def test_what_is_not_written_has_its_default() -> None:
    """The smallest space is a whole plan: records, parts and the settings of parts are filled in."""
    space = read(SMALL)
    plan = draw(space, Replay({}))
    assert plan.training == TrainingPlan(epochs=2, optimizer=Part(name="adam"), schedule=Part(name="constant"))
    assert plan.runtime == Part(name="onnxruntime", settings=(("threads", 1), ("batch_size", 1)))
    assert plan.compression == ()
    assert [objective.name for objective in space.objectives] == ["accuracy", "latency_ms"]
    assert (space.search.sampler.name, space.search.sampler["startup"]) == ("frontier", 10)
    assert space.search.timeout is None


@pytest.mark.parametrize(
    "written", ["mlp", "{name: mlp}", "{name: mlp, width: 64, dropout: 0}", "{name: mlp, dropout: 0.0}"]
)
def test_ways_to_write_a_part_are_one_part(written: str) -> None:
    """A bare name, a mapping and a mapping that spells out defaults give one fingerprint."""
    plan = draw(read(SMALL.replace("mlp", written)), Replay({}))
    assert plan.fingerprint() == draw(read(SMALL), Replay({})).fingerprint()


def test_a_whole_number_becomes_a_float_where_a_float_is_asked_for() -> None:
    """`lr: 1` and `lr: 1.0` are one plan; the default of a setting is converted as well."""
    one, other = (draw(read(SMALL + f"  lr: {lr}\n"), Replay({})) for lr in ("1", "1.0"))
    assert one.fingerprint() == other.fingerprint()
    assert isinstance(one.model["dropout"], float)


def test_every_key_of_a_space_is_read() -> None:
    """Objectives, limits, pins and the search come out as records."""
    space = read(WHOLE)
    assert space.seed == 3
    assert [objective.name for objective in space.objectives] == ["accuracy", "latency_ms", "size_kb"]
    assert space.objectives[2] == Objective(name="size_kb", direction="minimize")
    assert space.constraints == (
        Constraint(name="size_kb", sign="<=", bound=500.0),
        Constraint(name="accuracy", sign=">=", bound=0.9),
    )
    assert space.reference == {"model.width": 32}
    assert (space.search.trials, space.search.timeout) == (40, 5400.0)
    assert space.search.sampler == Part(name="frontier", settings=(("startup", 5),))
    assert (space.file, space.text) == ("toy.yaml", WHOLE)


def test_knobs_are_named_by_their_dotted_paths() -> None:
    """Settings of options carry the option's label; techniques their name, or the index of a choice."""
    assert [(knob.path, knob_in_words(knob)) for knob in knobs(read(WHOLE))] == [
        ("model.width", "16 | 32 | 64"),
        ("model.depth", "1 … 3"),
        ("training.optimizer.momentum", "0 … 0.9 (step 0.3)"),
        ("training.lr", "0.001 … 0.1 (log)"),
        ("training.schedule", "constant | step | cosine"),
        ("training.schedule.step.gamma", "0.1 … 0.5"),
        ("training.accumulation.window", "1 | 2 | 4"),
        ("compression.channel_pruning.ratio", "0 … 0.9"),
        ("compression.channel_pruning.layers", '["*"] | ["fc1", "fc2"]'),
        ("compression.1", "quantization | quantization#2"),
        ("compression.1.quantization.bits", "32 | 8"),
        ("runtime.threads", "1 | 4"),
    ]


def test_a_technique_that_is_there_twice_is_named_by_its_index() -> None:
    """Two prunings in one list have knobs of their own."""
    pruning = "{name: channel_pruning, ratio: {low: 0, high: 0.5}}"
    space = read(SMALL + f"compression: [{pruning}, {pruning}]\n")
    assert [knob.path for knob in knobs(space)] == ["compression.0.ratio", "compression.1.ratio"]


@pytest.mark.parametrize(
    ("written", "knob"),
    [
        ("width: {low: 1, high: 9}", Range(path="model.width", low=1, high=9, integer=True)),
        ("width: {low: 1, high: 9, step: 4}", Range(path="model.width", low=1, high=9, step=4, integer=True)),
        ("dropout: {low: 0, high: 1}", Range(path="model.dropout", low=0.0, high=1.0)),
        ("dropout: {low: 0, high: 0.3, step: 0.1}", Range(path="model.dropout", low=0.0, high=0.3, step=0.1)),
        ("scale: {low: 1, high: 10, log: true}", Range(path="model.scale", low=1.0, high=10.0, log=True)),
        ("width: {low: 1, high: 9, log: false}", Range(path="model.width", low=1, high=9, integer=True)),
    ],
)
def test_a_range_has_the_numbers_of_its_field(written: str, knob: Range) -> None:
    """Whole numbers stay whole where the field is whole and are floats where it is a float."""
    found = _setting(read(SMALL.replace("mlp", f"{{name: mlp, {written}}}")), knob.path.partition(".")[2])
    assert found == knob
    assert isinstance(found, Range)
    assert isinstance(found.low, int) is knob.integer


@pytest.mark.parametrize(
    ("written", "labels"),
    [
        ("dropout: {choice: [0, 0.5]}", (0.0, 0.5)),
        ("scale: {choice: [null, 2]}", (None, 2.0)),
        ("activation: {choice: [relu, gelu]}", ("relu", "gelu")),
        ("width: {choice: [8]}", (8,)),
    ],
)
def test_an_option_is_its_own_label(written: str, labels: tuple[object, ...]) -> None:
    """A study stores the values themselves, as the field holds them."""
    name = written.partition(":")[0]
    found = _setting(read(SMALL.replace("mlp", f"{{name: mlp, {written}}}")), name)
    assert isinstance(found, Choice)
    assert found.labels == labels
    assert [option.value for option in found.options if isinstance(option, Leaf)] == list(labels)
    assert [type(label) for label in found.labels] == [type(label) for label in labels]


def test_a_path_starts_at_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that is a path becomes absolute, wherever the program was started."""
    monkeypatch.chdir(tmp_path)
    space = read(WHOLE, file=Path("spaces") / "toy.yaml")
    found = dict(_part(space, "dataset").fields)
    assert found["file"] == Leaf(value=str(tmp_path.resolve() / "spaces" / "data" / "train.csv"))
    assert found["cache"] == Leaf(value=None)


def test_spaces_that_differ_in_search_only_are_one_space() -> None:
    """What a run can go on with does not depend on `search`, on the order of keys, or on spelling."""
    searched = re.sub(r"search: .*", "search: {trials: 3}", WHOLE)
    spelled = WHOLE.replace("seed: 3\n", "").replace("momentum: {low: 0,", "momentum: {low: 0.0,") + "seed: 3\n"
    assert searched != WHOLE
    assert read(searched).canonical() == read(WHOLE).canonical() == read(spelled).canonical()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seed: 3", "seed: 4"),
        ("name: toy", "name: toys"),
        ("[16, 32, 64]", "[32, 16, 64]"),
        ("high: 0.1, log: true", "high: 0.1"),
        ("train.csv", "test.csv"),
        ("mode: qat", "mode: qat, recovery_epochs: 1"),
        ("<= 500", "<= 501"),
        ("model.width: 32", "model.width: 16"),
        (", size_kb: minimize", ""),
    ],
)
def test_any_other_difference_makes_another_space(old: str, new: str) -> None:
    """A change to plan, objectives, limits, pins, name or seed shows in the canonical text."""
    assert old in WHOLE
    assert read(WHOLE.replace(old, new)).canonical() != read(WHOLE).canonical()


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5h", 5400), ("1h1m1s", 3661), ("0s", 0)],
)
def test_a_duration_is_read_in_seconds(written: str, seconds: float) -> None:
    """Hours, minutes and seconds, in that order, add up."""
    assert seconds_of(written) == seconds


@pytest.mark.parametrize("written", ["", "10", "m", "10 m", "30m1h", "1h1h", "-1s", "1e3s", "10ms", "1..5h"])
def test_what_is_no_duration_is_refused(written: str) -> None:
    """A duration needs units, each once and the larger first."""
    with pytest.raises(ValueError, match="a duration is written like 10m"):
        seconds_of(written)


@pytest.mark.parametrize("timeout", ["600", "600.0", "10m"])
def test_a_timeout_may_be_seconds_or_a_duration(timeout: str) -> None:
    """`timeout: 600` and `timeout: 10m` are the same."""
    assert read(SMALL + f"search: {{timeout: {timeout}}}\n").search.timeout == 600.0
