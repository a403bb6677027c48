"""The JSON Schema of space files: editors accept with it what the reader accepts."""

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import space_toy
from ruamel.yaml import YAML

from beats_search.space.schema import json_schema


@pytest.fixture(autouse=True)
def _shelves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space_toy.install(tmp_path, monkeypatch)


def _errors(text: str) -> list[Any]:
    schema = json.loads(json.dumps(json_schema()))
    return list(jsonschema.Draft202012Validator(schema).iter_errors(YAML(typ="safe", pure=True).load(text)))


def test_it_is_a_json_schema() -> None:
    """It is plain data and valid in draft 2020-12."""
    schema = json.loads(json.dumps(json_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize(
    "text",
    [
        space_toy.SMALL,
        space_toy.WHOLE,
        space_toy.SMALL.replace("mlp", "my_module:net"),
        space_toy.SMALL.replace("mlp", "{name: 'my_module:net', anything: {choice: [1, x]}}"),
        space_toy.SMALL.replace("mlp", "{choice: [mlp, {name: cnn, width: {low: 1, high: 4, step: 1}}]}"),
        space_toy.SMALL + "search: {timeout: 90}\n",
    ],
)
def test_a_right_space_is_valid(text: str) -> None:
    """What the reader takes, the schema takes: bare names, settings, and knobs where they may stand."""
    assert _errors(text) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: toy", "naame: toy"),
        ("name: toy", "name: .."),
        ("dataset: digits", "dataset: {choice: [digits]}"),
        ("dataset: digits", "dataset: {name: digits, size: {choice: [4, 8]}}"),
        ("dataset: digits", "dataset: csv"),
        ("model: mlp", "model: mpl"),
        ("model: mlp", "model: cnn"),
        ("model: mlp", "model: {name: mlp, wiidth: 3}"),
        ("model: mlp", "model: {name: mlp, width: {low: 1}}"),
        ("model: mlp", "model: {name: mlp, width: {choice: []}}"),
        ("model: mlp", "model: {name: mlp, width: {choice: [1, x]}}"),
        ("model: mlp", "model: {name: mlp, activation: {low: 1, high: 2}}"),
        ("epochs: 2", "epoch: 2"),
        ("epochs: 2", "epochs: two"),
        ("epochs: 2", "epochs: 2\n  device: {choice: [cpu]}"),
        ("model: mlp", "model: mlp\nruntime: {name: onnxruntime, batch_size: {choice: [1]}}"),
        ("model: mlp", "model: mlp\nsearch: {timeout: 10x}"),
        ("model: mlp", "model: mlp\nsearch: {storige: here}"),
        ("model: mlp", "model: mlp\nobjectives: {accuracy: maximize}"),
        ("model: mlp", "model: mlp\nobjectives: {accuracy: maximize, macs: maximize}"),
        ("model: mlp", "model: mlp\nconstraints: {size_kb: 500}"),
        ("model: mlp", "model: mlp\ncompression: quantization"),
        ("model: mlp", "model: mlp\ncompression: [{name: quantization, bits: 9}]"),
    ],
)
def test_a_wrong_space_is_invalid(old: str, new: str) -> None:
    """An editor underlines a typo, a wrong type and a knob where none may stand."""
    assert old in space_toy.SMALL
    assert _errors(space_toy.SMALL.replace(old, new)) != []


def _descriptions(schema: object) -> list[str]:
    if isinstance(schema, list):
        return [text for item in schema for text in _descriptions(item)]
    if not isinstance(schema, dict):
        return []
    own = [schema["description"]] if isinstance(schema.get("description"), str) else []
    return own + [text for item in schema.values() for text in _descriptions(item)]


def test_every_part_is_described() -> None:
    """An editor can show what a part does: the parts' own words are in the schema."""
    found = _descriptions(copy.deepcopy(json_schema()))
    for words in (
        "Small pictures of digits.",
        "Convolutions.",
        "Fewer channels.",
        "A proposal with the most to expect.",
        "Half a cosine.",
    ):
        assert words in found
