"""Mistakes in a space file: each is reported once, at its line, with what is allowed."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import space_toy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from space_toy import SMALL, WHOLE, mistakes, read

from beats_search.records.errors import SpaceError


@pytest.fixture(autouse=True)
def _shelves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space_toy.install(tmp_path, monkeypatch)


WRONG_LINE = "# <-"
PRUNING = "{name: channel_pruning, ratio: 0.5}"
OPEN_PRUNING = "{name: channel_pruning, ratio: {choice: [0, 0.5]}}"

PLAN_MISTAKES = {
    "key of the file": ("moodel: mlp # <-", "unknown key 'moodel'; did you mean 'model'? (name, dataset, model"),
    "key of a record": ("training:\n  epochs: 2\n  lrr: 1 # <-", "unknown key 'lrr' in training; did you mean 'lr'? ("),
    "key of an inner record": (
        "training:\n  epochs: 2\n  accumulation:\n    windw: 1 # <-",
        "unknown key 'windw' in training.accumulation; did you mean 'window'? (window,",
    ),
    "unknown key of the search": (
        "search: {storige: a} # <-",
        "unknown key 'storige' in search; did you mean 'storage'?",
    ),
    "storage that is no database": (
        "search: {storage: here} # <-",
        "search.storage needs a database of postgresql, mysql or sqlite, such as postgresql://user@host/database, got",
    ),
    "storage without a name": (
        "search: {storage: 'postgresql://me@host'} # <-",
        "search.storage needs to name a database",
    ),
    "storage with a password": (
        "search: {storage: 'postgresql://me:secret@host/db'} # <-",
        "search.storage holds a password, and reports show it; put that into BEATS_SEARCH_STORAGE_PASSWORD",
    ),
    "storage on a cluster": (
        "search: {backend: ray, storage: 'postgresql://me@host/db'} # <-",
        "search.storage needs backend: local, got ray",
    ),
    "setting": (
        "model: {name: mlp, wiidth: 3} # <-",
        "unknown setting 'wiidth' of model 'mlp'; did you mean 'width'? (",
    ),
    "setting of none": ("training:\n  epochs: 1\n  optimizer: {name: adam, x: 1} # <-", "'adam'; there are none"),
    "part": ("model: mpl # <-", "unknown model 'mpl'; did you mean 'mlp'? (cnn, mlp)"),
    "part with settings": (
        "runtime: {name: onxruntime, threads: 1} # <-",
        "did you mean 'onnxruntime'? (onnxruntime, ",
    ),
    "part that is a number": ("model: 3 # <-", "model needs a model (cnn, mlp), got 3"),
    "part that is a list": ("model: [mlp] # <-", "model needs a model (cnn, mlp), got a list"),
    "part without a name": ("model: {width: 3} # <-", "got a mapping without a name; allowed: (name, choice)"),
    "part with a wrong name": ("model: {name: 3} # <-", "model needs a model (cnn, mlp) as name, got 3"),
    "part with a misspelled choice": ("model: {chioce: [mlp]} # <-", "did you mean 'choice'? (name, choice)"),
    "required setting": ("model: cnn # <-", "model.width is missing: it needs a whole number"),
    "technique by module": ("compression:\n  - my:prune # <-", "a technique cannot be written as module:name"),
    "list that is none": ("compression: {name: quantization} # <-", "compression needs a list of parts, got a mapping"),
    "list that is nothing": ("compression: # <-", "compression needs a list of parts, got nothing; [] is none"),
    "technique after the last": (
        "compression:\n  - quantization\n  - {name: channel_pruning, ratio: 0.5} # <-",
        "channel_pruning must come before quantization",
    ),
    "technique after one that may be the last": (
        f"compression:\n  - {{choice: [{PRUNING}, quantization]}}\n  - {PRUNING} # <-",
        "channel_pruning must come before quantization",
    ),
    "last technique twice": ("compression:\n  - quantization\n  - quantization # <-", "may be there once only"),
    "number for text": (
        "training:\n  epochs: 2\n  device: 3 # <-",
        "training.device needs text, got 3; put it in quotes",
    ),
    "text for a number": ("training:\n  epochs: two # <-", "training.epochs needs a whole number, got 'two'"),
    "float for a whole number": ("training:\n  epochs: 2.5 # <-", "training.epochs needs a whole number, got 2.5"),
    "boolean for a number": ("training:\n  epochs: true # <-", "training.epochs needs a whole number, got true"),
    "boolean for a float": ("training:\n  epochs: 1\n  lr: true # <-", "training.lr needs a number, got true"),
    "number for a boolean": (
        "training:\n  epochs: 1\n  augmentation: {flip: 1} # <-",
        "training.augmentation.flip needs true or false, got 1",
    ),
    "boolean for a listed number": (
        "compression:\n  - {name: quantization, bits: true} # <-",
        "one of 32, 8, got true",
    ),
    "number that is not listed": ("compression:\n  - {name: quantization, bits: 9} # <-", "needs one of 32, 8, got 9"),
    "word that is not listed": (
        "training:\n  epochs: 1\n  precision: fp23 # <-",
        "training.precision needs one of 'auto', 'fp32', 'bf16', got 'fp23'; did you mean 'fp32'?",
    ),
    "value for a list": (
        "compression:\n  - {name: channel_pruning, ratio: 0, layers: fc1} # <-",
        "layers needs a list, each text, got 'fc1'",
    ),
    "list for a value": ("training:\n  epochs: [1] # <-", "training.epochs needs a whole number, got a list"),
    "value for a record": ("training:\n  epochs: 1\n  accumulation: 4 # <-", "needs a mapping (window, trigger"),
    "nothing": ("training:\n  epochs: # <-", "training.epochs needs a whole number, got nothing"),
    "value that a record refuses": ("training:\n  epochs: 0 # <-", "training.epochs needs to be at least 1, got 0"),
    "value that a part refuses": ("model:\n  name: mlp\n  width: 0 # <-", "mlp: width needs to be at least 1, got 0"),
    "values that do not go together": (
        "compression:\n  - name: quantization\n    recovery_epochs: 2 # <-",
        "quantization: ptq refuses recovery_epochs, got 2",
    ),
    "negative seed": ("seed: -1 # <-", "seed needs to be at least 0, got -1"),
    "number that is not finite": ("training:\n  epochs: 1\n  lr: .inf # <-", "a number needs to be finite, got .inf"),
    "no number": ("training:\n  epochs: 1\n  lr: .nan # <-", "a number needs to be finite, got .nan"),
    "number beyond all bounds": ("seed: 123456789012345678901234567890 # <-", "a whole number has at most 63 bits"),
    "name that is a folder": ("name: .. # <-", "name needs to be 1 to 100 letters, digits, '-', '_' or '.'"),
    "name that is a path": ("name: a/b # <-", "got 'a/b'"),
    "name that ends in a new line": (r'name: "a\n" # <-', "name needs to be 1 to 100 letters"),
    "name that is a number": ("name: 12 # <-", "name needs text, got 12; put it in quotes"),
}

KNOB_MISTAKES = {
    "key": (
        "model: {name: mlp, width: {low: 1, hgih: 3}} # <-",
        "unknown key 'hgih' of a knob at model.width; did you",
    ),
    "missing end": ("model: {name: mlp, width: {low: 1}} # <-", "needs low and high, high is missing"),
    "nothing to go on": ("model: {name: mlp, width: {}} # <-", "needs low and high, low and high is missing"),
    "ends upside down": ("model: {name: mlp, width: {low: 3, high: 1}} # <-", "needs low < high, got low=3, high=1"),
    "ends that are equal": ("model: {name: mlp, width: {low: 3, high: 3}} # <-", "needs low < high"),
    "end that is no number": (
        "model: {name: mlp, width: {low: a, high: 3}} # <-",
        "width.low needs a whole number, got",
    ),
    "float end for a whole number": ("model: {name: mlp, width: {low: 1, high: 4.5}} # <-", "width.high needs a whole"),
    "logarithm of nothing": (
        "model: {name: mlp, dropout: {low: 0, high: 1, log: true}} # <-",
        "needs low > 0, got low=0",
    ),
    "log that is no boolean": ("model: {name: mlp, width: {low: 1, high: 4, log: 2}} # <-", "log needs true or false"),
    "log with a step": ("model: {name: mlp, width: {low: 1, high: 4, log: true, step: 1}} # <-", "a step, not both"),
    "step backwards": ("model: {name: mlp, width: {low: 1, high: 4, step: -1}} # <-", "needs step > 0, got step=-1"),
    "step that misses the end": (
        "model: {name: mlp, dropout: {low: 0, high: 1, step: 0.3}} # <-",
        "got step=0.3, which leads from 0.0 to 0.9, not 1.0",
    ),
    "range of words": (
        "model: {name: mlp, activation: {low: 1, high: 3}} # <-",
        "a range may not stand at model.activation: it needs one of 'relu', 'gelu'; list values with {choice: [...]}",
    ),
    "range of booleans": (
        "training:\n  epochs: 1\n  augmentation: {flip: {low: 0, high: 1}} # <-",
        "a range may not stand at training.augmentation.flip",
    ),
    "range of parts": ("model: {low: 1, high: 3} # <-", "a range may not stand at model: it needs a model (cnn, mlp)"),
    "empty choice": ("model: {name: mlp, width: {choice: []}} # <-", "needs a list of options, got an empty list"),
    "choice that is no list": ("model: {name: mlp, width: {choice: 3}} # <-", "needs a list of options, got 3"),
    "choice with other keys": ("model: {name: mlp, width: {choice: [1], low: 1}} # <-", "a choice has no other keys"),
    "option of a wrong type": (
        "model: {name: mlp, width: {choice: [1, a]}} # <-",
        "model.width needs a whole number, got",
    ),
    "option twice": ("model: {name: mlp, width: {choice: [8, 8]}} # <-", "need to differ, 8 equals 8"),
    "option twice as a float": ("model: {name: mlp, dropout: {choice: [0, 0.0]}} # <-", "need to differ"),
    "part twice": ("model: {choice: [mlp, mlp]} # <-", "the options at model need to differ, 'mlp' is there twice"),
    "part twice, with defaults": ("model: {choice: [mlp, {name: mlp, width: 64}]} # <-", "'mlp' is there twice"),
    "knob in a choice": (
        "model: {name: mlp, width: {choice: [1, {low: 1, high: 2}]}} # <-",
        "an option at model.width needs to be a fixed value, got a mapping",
    ),
    "choice in a choice of parts": ("model: {choice: [mlp, {choice: [mlp]}]} # <-", "needs to be a part, got a choice"),
    "knob for the data set": (
        "dataset: {choice: [digits, csv]} # <-",
        "a knob may not stand at dataset: it needs a fixed",
    ),
    "knob in the data set": ("dataset: {name: digits, size: {choice: [8, 4]}} # <-", "may not stand at dataset.size"),
    "knob for the seed": ("seed: {choice: [1, 2]} # <-", "a knob may not stand at seed"),
    "knob for the name": ("name: {choice: [a, b]} # <-", "a knob may not stand at name"),
    "knob for the device": (
        "training:\n  epochs: 1\n  device: {choice: [cpu]} # <-",
        "may not stand at training.device",
    ),
    "knob at a fixed setting": ("runtime: {name: onnxruntime, batch_size: {choice: [1, 2]}} # <-", "may not stand at"),
    "knob in search": ("search: {trials: {low: 1, high: 4}} # <-", "a knob may not stand at search.trials"),
    "knob for a whole record": (
        "training:\n  epochs: 1\n  accumulation: {choice: [{window: 1}, {window: 2}]} # <-",
        "a knob may not stand at training.accumulation as a whole; it may stand at one of its settings (window, ",
    ),
    "low end that is refused": (
        "training:\n  epochs: 1\n  lr: {low: 0, high: 1} # <-",
        "training.lr needs to be above 0, got 0.0",
    ),
    "high end that is refused": (
        "compression:\n  - name: channel_pruning\n    ratio: {low: 0, high: 1.5} # <-",
        "channel_pruning: ratio needs to be at least 0 and below 1, got 1.5",
    ),
    "option that is refused": (
        "training:\n  epochs: {choice: [1, 2, 0]} # <-",
        "training.epochs needs to be at least 1",
    ),
    "options that do not go together": (
        "compression:\n- name: quantization\n  mode: {choice: [qat, ptq]}\n  recovery_epochs: {low: 0, high: 1} # <-",
        "quantization: ptq refuses recovery_epochs, got 1",
    ),
}

SEARCH_MISTAKES = {
    "objectives that are none": ("objectives: accuracy # <-", "objectives needs a mapping (accuracy, latency_ms, "),
    "one objective": ("objectives: {accuracy: maximize} # <-", "objectives are two or three, got 1"),
    "four objectives": (
        "objectives: {accuracy: maximize, latency_ms: minimize, size_kb: minimize, macs: minimize} # <-",
        "objectives are two or three, got 4",
    ),
    "no accuracy": ("objectives: {size_kb: minimize, macs: minimize} # <-", "accuracy needs to be an objective"),
    "unknown objective": ("objectives: {accuracy: maximize, latency: minimize} # <-", "did you mean 'latency_ms'? ("),
    "wrong direction": (
        "objectives: {accuracy: maximize, macs: maximize} # <-",
        "objectives.macs needs 'minimize', got",
    ),
    "unknown constraint": ("constraints: {sise_kb: '<= 5'} # <-", "unknown measured value 'sise_kb'; did you mean"),
    "constraint that is a number": ("constraints: {size_kb: 500} # <-", 'needs a limit such as "<= 500", got 500'),
    "constraint with a wrong sign": ("constraints: {accuracy: '> 0.9'} # <-", 'needs a limit such as ">= 0.9", got'),
    "duration": ("search: {timeout: 10x} # <-", "a duration is written like 10m, 90s, 1h30m or as seconds, got '10x'"),
    "duration of nothing": ("search: {timeout: 0s} # <-", "search.timeout needs to be above 0 seconds, got 0.0"),
    "no trials": ("search: {trials: 0} # <-", "search.trials needs to be at least 1, got 0"),
    "sampler": (
        "search: {sampler: fronteir} # <-",
        "unknown sampler 'fronteir'; did you mean 'frontier'? (frontier, grid)",
    ),
    "pins that are none": ("reference: mlp # <-", "reference needs a mapping such as {model.width: 64}, got 'mlp'"),
    "pin of nothing": ("reference: {model.wiidth: 3} # <-", "unknown knob 'model.wiidth' in reference; there are none"),
    "pin of a fixed value": (
        "model: {name: mlp, depth: {choice: [1, 2]}, width: 3}\nreference: {model.width: 3} # <-",
        "unknown knob 'model.width' in reference",
    ),
    "pin of a technique": (
        f"compression: [{OPEN_PRUNING}]\nreference: {{compression.channel_pruning.ratio: 0}} # <-",
        "unknown knob 'compression.channel_pruning.ratio' in reference; there are none",
    ),
    "pin that is no option": (
        "model: {name: mlp, width: {choice: [16, 32]}}\nreference: {model.width: 64} # <-",
        "model.width is one of 16 | 32, got 64",
    ),
    "pin out of range": (
        "model: {name: mlp, width: {low: 16, high: 32}}\nreference: {model.width: 64} # <-",
        "model.width is one of 16 … 32, got 64",
    ),
    "pin between the steps": (
        "model: {name: mlp, width: {low: 16, high: 32, step: 8}}\nreference: {model.width: 20} # <-",
        "model.width is one of 16 … 32 (step 8), got 20",
    ),
    "pin that is a boolean": (
        "model: {name: mlp, depth: {choice: [1, 2]}}\nreference: {model.depth: true} # <-",
        "model.depth is one of 1 | 2, got true",
    ),
}

YAML_MISTAKES = {
    "key twice": ("seed: 1\nseed: 2 # <-", "the key 'seed' is already in line"),
    "key that is a number": ("1: 2 # <-", "a key needs to be text, got 1"),
    "key that is a list": ("? [a] # <-\n: 2", "a key needs to be text, got a list"),
    "merge key": ("seed: 1\n'<<': {seed: 2} # <-", "unknown key '<<'"),
    "Python object": ("seed: !!python/object:os.system x # <-", "has no meaning in a space file"),
    "tag on a mapping": ("search: !mine {trials: 2} # <-", "a tag such as !mine has no meaning in a space file"),
    "number that is tagged wrongly": ("seed: !!bool 7 # <-", "a boolean is true or false, got '7'"),
}

EVERY_MISTAKE = {**PLAN_MISTAKES, **KNOB_MISTAKES, **SEARCH_MISTAKES, **YAML_MISTAKES}


def _space_with(lines: str) -> str:
    """Return the small space with `lines` in the place of the keys that they begin with."""
    keys = {line.partition(":")[0] for line in lines.splitlines()}
    entries = re.split(r"\n(?=\w)", SMALL.rstrip())
    return "\n".join([*(entry for entry in entries if entry.partition(":")[0] not in keys), lines, ""])


@pytest.mark.parametrize(("lines", "words"), EVERY_MISTAKE.values(), ids=EVERY_MISTAKE.keys())
def test_a_mistake_is_reported_at_its_line_and_alone(lines: str, words: str) -> None:
    """Every kind of mistake is one message, `file:line: what, and what is allowed`."""
    text = _space_with(lines)
    line = 1 + next(number for number, each in enumerate(text.splitlines()) if WRONG_LINE in each)
    (found,) = mistakes(text)
    assert found.startswith(f"toy.yaml:{line}: ")
    assert words in found


@pytest.mark.parametrize("key", ["name", "dataset", "model", "training.epochs"])
def test_a_required_key_that_is_missing_is_named(key: str) -> None:
    """What a space cannot do without is missed at the line where the mapping begins."""
    last = key.rpartition(".")[2]
    text = "".join(line for line in SMALL.splitlines(keepends=True) if not line.strip().startswith(f"{last}:"))
    (found,) = mistakes(text if key != "training.epochs" else text.replace("training:", "training: {}"))
    assert found.startswith(f"toy.yaml:{4 if key == 'training.epochs' else 1}: {key} is missing: it needs ")


def test_a_missing_record_is_missed_by_its_required_keys() -> None:
    """Without `training`, what is missing is said down to the key."""
    (found,) = mistakes("name: a\ndataset: digits\nmodel: mlp\n")
    assert "training.epochs is missing" in found


def test_all_mistakes_of_a_file_are_reported_together_in_order() -> None:
    """A file with mistakes of every stage names each of them, line by line."""
    text = (
        "name: ..\nseed: .nan\ndataset: dgits\nmodel: {name: mlp, width: {low: 5, high: 1}}\n"
        "training:\n  epochs: 0\n  lr: x\ncompression: {}\nsearch: {trials: 0}\nobjectives: {}\nx: 1\n"
    )
    found = mistakes(text)
    assert [int(line.split(":")[1]) for line in found] == [1, 2, 3, 4, 6, 7, 8, 9, 10, 11]


def test_a_wrong_field_does_not_hide_what_another_is_refused_for() -> None:
    """A record is still checked with the default of the field that could not be read."""
    found = mistakes(SMALL + "  batch_size: 0\n  lr: x\n")
    assert "batch_size needs to be at least 1" in found[0]
    assert "lr needs a number" in found[1]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "a space file is a mapping with the keys name, dataset, "),
        ("# nothing but a comment\n", 1, "got an empty file"),
        ("- name: toy\n", 1, "got a list"),
        ("toy\n", 1, "got 'toy'"),
        ("\n\nname: [1\n", 3, "not valid YAML: "),
        ("name: toy\n\tseed: 1\n", 2, "indent with spaces, not with tabs"),
        ("name: toy\nseed: a: b\n", 2, "not valid YAML: mapping values are not allowed here"),
        ("name: toy\nconstraints: {accuracy: *x}\n", 2, "undefined alias 'x'"),
        ("name: toy\nconstraints:\n  accuracy: >= 0.9\n", 3, 'in quotes, such as ">= 0.9"'),
        ("name: toy\n---\nname: toy\n", 2, "but found another document"),
        ("name: toy\n\x00\x01\x02", 2, "not a text file: it holds the character 0x0000"),
        ("name: toy\nx: " + "[" * 60 + "]" * 60, 2, "nested deeper than 50 levels"),
        ("name: toy\nx: " + "[" * 100_000, 2, "nested deeper than 50 levels"),
        ("name: toy\nx: " + "{a: " * 5_000, 2, "nested deeper than 50 levels"),
        ("name: &a [*a]\n", 1, "nested deeper than 50 levels"),
        ("name: toy\n#" + "x" * 1_000_000, 1, "a space file has at most 1,000,000 characters"),
    ],
)
def test_a_text_that_is_no_space_is_one_clear_mistake(text: str, line: int, words: str) -> None:
    """What cannot be read at all is one message, never a traceback."""
    (found,) = mistakes(text)
    assert found.startswith(f"toy.yaml:{line}: ")
    assert words in found


def test_aliases_cannot_make_a_file_huge() -> None:
    """Nine levels of nine aliases, half a billion values, are refused at once."""
    levels = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    (found,) = mistakes("\n".join(levels))
    assert "more than 20,000 values" in found


WORDS = st.sampled_from(
    ["name", "choice", "low", "high", "log", "step", "mlp", "quantization", "step", "accuracy", "model.width", "<= 5"]
)
VALUES = st.none() | st.booleans() | st.integers(-3, 70) | st.floats(-1, 2) | st.sampled_from([1e300, 2**62]) | WORDS
STRANGE = st.recursive(VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3))
PATHS = st.sampled_from([
    "name", "seed", "dataset", "model", "model.width", "model.dropout", "training", "training.lr", "training.schedule",
    "training.accumulation", "compression", "compression.0.ratio", "compression.1", "runtime", "runtime.threads",
    "objectives", "constraints", "reference", "reference.model.width", "search", "search.timeout", "search.sampler",
])  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(st.dictionaries(PATHS, STRANGE, min_size=1, max_size=3))
def test_no_space_is_too_strange(strange: dict[str, Any]) -> None:
    """Whatever stands wherever in a space, its mistakes are told, or it is read and its text reads the same."""
    changes = [f"{path}={json.dumps(value)}" for path, value in strange.items()]
    try:
        space = read(WHOLE, *changes)
    except SpaceError:
        return
    assert read(space.text).canonical() == space.canonical()
