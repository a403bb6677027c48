"""A user's own parts: `module:name` of a function is checked like any part, and may fail in every way."""

import sys
from pathlib import Path

import pytest
import space_toy
from space_toy import SMALL, mistakes, read

from beats_search.records.errors import MissingExtraError
from beats_search.records.part import Part
from beats_search.space.draw import Replay, draw, knobs
from beats_search.space.knobs import Leaf, PartNode, Range, SearchSpace


@pytest.fixture(autouse=True)
def _shelves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space_toy.install(tmp_path, monkeypatch)


def _setting(space: SearchSpace, name: str) -> object:
    model = dict(space.plan.fields)["model"]
    assert isinstance(model, PartNode)
    return dict(model.fields)[name]


MINE = """
from typing import Any, Literal

class Thing: ...

def net(input_shape, classes, width: int, *, rate=0.5, kind: Literal["a", "b"] = "a", size: int = None, thing=Thing()):
    return (input_shape, classes, width, rate, kind)

def data(size: float = 1, free: Any = None):
    return size
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a space file in a folder with a module of a user's own."""
    (tmp_path / "my_parts_for_space.py").write_text(MINE)
    monkeypatch.delitem(sys.modules, "my_parts_for_space", raising=False)
    return tmp_path / "space.yaml"


def _own(settings: str) -> str:
    return SMALL.replace("mlp", f"{{name: 'my_parts_for_space:net', {settings}}}")


def test_a_function_of_the_users_own_is_a_part(own: Path) -> None:
    """Its parameters are settings; a default that no plan can hold is left to the function."""
    plan = draw(read(_own("width: 3"), file=own), Replay({}))
    assert plan.model == Part(
        name="my_parts_for_space:net", settings=(("width", 3), ("rate", 0.5), ("kind", "a"), ("size", None))
    )


@pytest.mark.parametrize(("written", "integer"), [("{low: 1, high: 4}", True), ("{low: 1, high: 4.5}", False)])
def test_without_a_type_the_ends_of_a_range_decide(own: Path, written: str, *, integer: bool) -> None:
    """A parameter without annotation takes whole numbers where both ends are whole, else floats."""
    found = _setting(read(_own(f"width: 3, rate: {written}"), file=own), "rate")
    assert isinstance(found, Range)
    assert found.integer is integer
    assert isinstance(found.high, float) is not integer


@pytest.mark.parametrize("value", ["x", "[1, a]", "true", "3", "null"])
def test_without_a_type_any_value_fits(own: Path, value: str) -> None:
    """A parameter without annotation takes whatever a plan can hold."""
    assert isinstance(_setting(read(_own(f"width: 3, rate: {value}"), file=own), "rate"), Leaf)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("rate: 1", "model.width is missing: it needs a whole number"),
        ("width: 3, kind: c", "model.kind needs one of 'a', 'b', got 'c'"),
        ("width: 3, deep: 1", "unknown setting 'deep' of model 'my_parts_for_space:net'"),
        ("width: 3, rate: [[1], 2]", "model.rate needs a value, got a list"),
    ],
)
def test_settings_are_checked_against_the_signature(own: Path, settings: str, words: str) -> None:
    """What a user's function does not take is a mistake like any other."""
    (found,) = space_toy.mistakes(_own(settings), file=own)
    assert found.startswith(f"{own}:3: ")
    assert words in found


def test_a_choice_of_own_parts_is_labelled_by_their_names(own: Path) -> None:
    """`module:name` is a label; the knobs of the option stand below it."""
    text = SMALL.replace("mlp", "{choice: [mlp, {name: 'my_parts_for_space:net', width: {choice: [1, 2]}}]}")
    assert [knob.path for knob in knobs(read(text, file=own))] == ["model", "model.my_parts_for_space:net.width"]


def _write(folder: Path, name: str, text: str) -> Path:
    (folder / f"{name}.py").write_text(text)
    return folder / "space.yaml"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("1 / 0", "model 'broken_part:net' cannot be loaded: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "cannot be loaded: SystemExit: 3"),
        ("def net(:", "cannot be loaded: SyntaxError"),
        ("def nett(shape, classes): ...", "has no function 'net'; did you mean 'nett'?"),
    ],
)
def test_a_module_of_the_users_own_that_fails_is_a_mistake(
    source: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever happens while a user's module is imported is told at the line of the part."""
    file = _write(tmp_path, "broken_part", source)
    monkeypatch.delitem(sys.modules, "broken_part", raising=False)
    (found,) = mistakes(SMALL.replace("mlp", "broken_part:net"), file=file)
    assert found.startswith(f"{file}:3: ")
    assert words in found


@pytest.mark.parametrize(
    "name", ["no_such_module_here:net", "json.no_such_module_here:net", ":net", "a b:net", ".x:net"]
)
def test_a_module_that_is_not_there_is_a_mistake_not_a_missing_library(name: str) -> None:
    """A typo in `module:name` is a mistake in the file; nobody is told to install it."""
    (found,) = mistakes(SMALL.replace("mlp", f"'{name}'"))
    assert found.startswith("toy.yaml:3: ")
    assert "pip install" not in found


def test_a_missing_library_alone_is_a_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A right space whose part needs a library says which one, at its line, with an error of its own."""
    file = _write(tmp_path, "needs_a_library", "import no_such_library\n")
    monkeypatch.delitem(sys.modules, "needs_a_library", raising=False)
    text = SMALL.replace("mlp", "needs_a_library:net")
    with pytest.raises(MissingExtraError, match=r"space.yaml:3: .*pip install no_such_library"):
        read(text, file=file)
    assert len(mistakes(text + "x: 1\n", file=file)) == 2, "together with mistakes it is one of them"
