"""`--set path=value`: the change is made before the space is checked, and is checked with it."""

from pathlib import Path

import pytest
import space_toy
from space_toy import SMALL, WHOLE, mistakes, read

from beats_search.records.part import Scalar
from beats_search.space.draw import Replay, draw, knob_in_words, knobs


@pytest.fixture(autouse=True)
def _shelves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space_toy.install(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("change", "written"),
    [
        ("training.epochs=3", SMALL.replace("epochs: 2", "epochs: 3")),
        ("training.epochs = 3", SMALL.replace("epochs: 2", "epochs: 3")),
        ("training.lr=1e-2", SMALL + "  lr: 0.01\n"),
        ("training.accumulation.window=4", SMALL + "  accumulation: {window: 4}\n"),
        ("model.width=8", SMALL.replace("mlp", "{name: mlp, width: 8}")),
        ("model={name: mlp, width: 8}", SMALL.replace("mlp", "{name: mlp, width: 8}")),
        ("model.width={choice: [8, 16]}", SMALL.replace("mlp", "{name: mlp, width: {choice: [8, 16]}}")),
        ("runtime.threads=2", SMALL + "runtime: {name: onnxruntime, threads: 2}\n"),
        ("training.optimizer.name=sgd", SMALL + "  optimizer: sgd\n"),
        ("seed=7", SMALL + "seed: 7\n"),
        ("compression=[quantization]", SMALL + "compression: [quantization]\n"),
        ("constraints.size_kb=<= 5", SMALL + "constraints: {size_kb: '<= 5'}\n"),
    ],
)
def test_a_change_is_as_if_it_had_been_written(change: str, written: str) -> None:
    """Setting a value, known or new, of the plan or of a part given by name, equals writing it."""
    assert read(SMALL, change).canonical() == read(written).canonical()


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        ("compression.channel_pruning.ratio={choice: [0.1, 0.2]}", "compression.channel_pruning.ratio", "0.1 | 0.2"),
        ("compression.0.ratio={choice: [0.1, 0.2]}", "compression.channel_pruning.ratio", "0.1 | 0.2"),
        ("training.schedule.step.gamma={low: 0, high: 1}", "training.schedule.step.gamma", "0 … 1"),
        ("training.schedule.2={name: step, every: {choice: [1, 2]}}", "training.schedule.step#2.every", "1 | 2"),
        ("training.schedule.choice=[cosine, step]", "training.schedule", "cosine | step"),
        ("training.lr.high=1", "training.lr", "0.001 … 1 (log)"),
        ("compression.1.0.bits={choice: [8]}", "compression.1.quantization.bits", "8"),
        ("runtime.threads=3", "compression.1", "quantization | quantization#2"),
    ],
)
def test_a_change_reaches_into_lists_and_options(change: str, path: str, words: str) -> None:
    """An item is named by its part or its index, as in the path of its knobs."""
    found = {knob.path: knob_in_words(knob) for knob in knobs(read(WHOLE, change))}
    assert found[path] == words


def test_changes_are_made_one_after_the_other() -> None:
    """The last change of a value holds, and one may build on another."""
    space = read(SMALL, "training.epochs=3", "training.epochs=4", "model={name: mlp}", "model.depth=2")
    plan = draw(space, Replay({}))
    assert (plan.training.epochs, plan.model["depth"]) == (4, 2)


def test_a_change_of_the_search_needs_no_search_in_the_file() -> None:
    """Budget and sampler can be set from nothing, with the default sampler's name."""
    search = read(SMALL, "search.timeout=1m", "search.trials=5", "search.sampler.startup=2").search
    assert (search.timeout, search.trials) == (60.0, 5)
    assert (search.sampler.name, search.sampler["startup"]) == ("frontier", 2)


@pytest.mark.parametrize(("path", "value"), [("model.width", 16), ("training.accumulation.window", 4)])
def test_a_pin_is_set_by_the_path_of_its_knob(path: str, value: Scalar) -> None:
    """`reference` is the one mapping whose keys have dots."""
    assert read(WHOLE, f"reference.{path}={value}").reference[path] == value


def test_the_text_of_a_changed_space_reads_as_the_changed_space() -> None:
    """What is kept of a run describes what was run, changes included; an unchanged text is kept as it is."""
    changed = read(WHOLE, "model.width=8", "reference={}", "search.timeout=1m")
    again = read(changed.text)
    assert again.canonical() == changed.canonical() != read(WHOLE).canonical()
    assert again.search == changed.search
    assert read(WHOLE).text == WHOLE


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("training.lrr=1", "unknown key 'lrr' in training; did you mean 'lr'? ("),
        ("trainingg.lr=1", "unknown key 'trainingg'; did you mean 'training'? ("),
        ("training.lr=fast", "training.lr needs a number, got 'fast'"),
        ("training.lr=", "training.lr needs a number, got nothing"),
        ("training.lr=0", "training.lr needs to be above 0, got 0.0"),
        ("training.epochs.x=1", "unknown key 'x' of a knob at training.epochs"),
        ("training.device.x=1", "a knob at training.device"),
        ("model.wiidth=1", "unknown setting 'wiidth' of model 'mlp'; did you mean 'width'? ("),
        ("model.width={low: 1, high: 0}", "a range needs low < high"),
        ("model.width=[1", "not valid YAML: "),
        ("training.epochs", "a change is written path=value, such as training.epochs=2"),
        ("=3", "a change is written path=value"),
        ("training..lr=3", "a change is written path=value"),
        ("compression.pruning.ratio=0", "compression needs a list of parts, got a mapping"),
        ("", "a change is written path=value"),
    ],
)
def test_a_wrong_change_is_named_by_itself(change: str, words: str) -> None:
    """A mistake in a change names the change, not a line of the file."""
    found = mistakes(SMALL + "  device: cpu\n", change)
    assert all(line.startswith(f"--set {change}: ") for line in found)
    assert any(words in line for line in found)


@pytest.mark.parametrize("change", ["compression.prunning.ratio=0", "compression.2.ratio=0", "compression.-1.ratio=0"])
def test_an_item_that_is_not_there_is_named(change: str) -> None:
    """A list cannot grow by a change to an item; its items are listed."""
    (found,) = mistakes(WHOLE, change)
    assert found.startswith(f"--set {change}: compression has no item ")
    assert "channel_pruning" in found
