"""Documents are tested: shipped spaces load, and README says what is so."""

import re
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from beats_search.cli.commands import app
from beats_search.space.draw import Replay, draw, grid_points, knobs
from beats_search.space.schema import json_schema, read_space

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SPACES = sorted((ROOT / "search_spaces").glob("*.yaml"))


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.name)
def test_shipped_space_loads_and_can_be_drawn_from(path: Path) -> None:
    """A shipped space has knobs, and its first plan can be drawn."""
    space = read_space(path.read_text(encoding="utf-8"), file=path)
    assert space.name == path.stem
    assert knobs(space)
    data = {"tabular": "csv", "beats": "digits"}.get(path.stem, path.stem)
    assert draw(space, Replay(next(iter(grid_points(space, 2))))).dataset.name == data


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.name)
def test_shipped_space_is_valid_for_editors(path: Path) -> None:
    """An editor that checks with the JSON Schema accepts a shipped space."""
    jsonschema.validate(YAML(typ="safe").load(path.read_text(encoding="utf-8")), json_schema())


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.name)
def test_shipped_space_is_a_lesson(path: Path) -> None:
    """A shipped space begins with what it is for, and explains itself."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    assert sum("#" in line for line in lines) >= 5


def test_readme_names_every_command() -> None:
    """README lists each command of the command line."""
    for command in app.registered_commands:
        assert command.callback is not None
        assert f"beats-search {command.callback.__name__}" in README


def test_readme_s_example_is_valid(tmp_path: Path) -> None:
    """The space in README, with the code beside it, passes validation."""
    (example,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "my_code.py").write_text(code, encoding="utf-8")
    space = read_space(example, file=tmp_path / "mine.yaml")
    assert {knob.path for knob in knobs(space)} >= {"model.width", "training.lr", "compression.quantization.bits"}


def test_readme_shows_its_two_commands_and_a_picture_first() -> None:
    """The first screen of README holds the two commands and one picture that is there."""
    first = README[:1600]
    assert "pip install . && beats-search run search_spaces/digits.yaml" in first
    assert "pip install -e '.[dev]' && pytest" in first
    (picture,) = re.findall(r"!\[.*?\]\((.*?)\)", first)
    assert (ROOT / picture).is_file()
