"""Plugins: every file on a shelf is a part, and parts from outside fit in."""

from dataclasses import FrozenInstanceError, fields, is_dataclass
from pathlib import Path

import pytest

from beats_search import plugins
from beats_search.records.errors import MissingExtraError
from beats_search.records.part import Part

PARTS = [(shelf, name) for shelf in plugins.SHELVES for name in plugins.names(shelf)]


@pytest.mark.parametrize(("shelf", "name"), PARTS, ids=str)
def test_every_part_is_a_frozen_dataclass_with_a_summary(shelf: str, name: str) -> None:
    """A part holds its settings frozen and says in one line what it is."""
    part = plugins.settings_class(shelf, name)
    assert is_dataclass(part)
    assert plugins.summary(shelf, name).endswith(".") or ":" in plugins.summary(shelf, name)
    required = {"ratio": 0.5, "network": "resnet18", "step_epochs": 2, "epochs": (2, 5), "path": "x.csv", "target": "y"}
    given = {entry.name: required[entry.name] for entry in fields(part) if entry.name in required}
    made = part(**given)
    for entry in fields(part)[:1]:
        with pytest.raises(FrozenInstanceError):
            setattr(made, entry.name, 1)


def test_a_typo_is_answered_with_what_was_meant() -> None:
    """An unknown name is reported with the near one and with all that there are."""
    with pytest.raises(plugins.UnknownPartError, match=r"unknown runtime 'onxruntime'; did you mean 'onnxruntime'\?"):
        plugins.settings_class("runtimes", "onxruntime")


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a module of a user's own, first on the path."""
    (tmp_path / "my_parts_for_plugins.py").write_text(
        "def net(input_shape, classes, width: int = 4, *, deep: bool = False):\n"
        "    '''A net of mine.'''\n"
        "    return (input_shape, classes, width, deep)\n"
        "import_me = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("outside")
def test_a_function_becomes_a_part() -> None:
    """`module:name` of a function is a part whose settings are the function's own parameters."""
    found = plugins.settings_class("models", "my_parts_for_plugins:net")
    assert [entry.name for entry in fields(found)] == ["width", "deep"]
    made = plugins.make("models", Part(name="my_parts_for_plugins:net", settings=(("width", 8),)))
    assert made.build((1, 8, 8), 10) == ((1, 8, 8), 10, 8, False)


def test_natural_signatures_become_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are marked as such and arrive as `Path`; lists become tuples; `*args` and `**more` are no settings."""
    (tmp_path / "natural_for_plugins.py").write_text(
        "from pathlib import Path\n"
        "def data(root: Path, cache: Path | None = None, sizes=[1, 2], *args, **more):\n"
        "    return root, cache, sizes\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = plugins.settings_class("datasets", "natural_for_plugins:data")
    assert {entry.name: bool(entry.metadata["path"]) for entry in fields(found)} == {
        "root": True,
        "cache": True,
        "sizes": False,
    }
    assert found(root="/here").load() == (Path("/here"), None, (1, 2))


@pytest.mark.parametrize("name", [":net", "module:", ":"])
def test_half_a_name_is_refused(name: str) -> None:
    """`module:name` needs both halves."""
    with pytest.raises(plugins.UnknownPartError, match="needs a module and a function"):
        plugins.settings_class("models", name)


@pytest.mark.usefixtures("outside")
def test_a_function_that_is_not_there_is_named() -> None:
    """A `module:name` without such a function says which functions the module has."""
    with pytest.raises(plugins.UnknownPartError, match="did you mean 'net'"):
        plugins.settings_class("models", "my_parts_for_plugins:nett")


def test_only_data_sets_and_models_come_from_functions() -> None:
    """A shelf without functions of users says so."""
    with pytest.raises(plugins.UnknownPartError, match="cannot be written as module:name"):
        plugins.settings_class("runtimes", "my:runtime")


def test_a_module_that_is_not_there_is_named() -> None:
    """A `module:name` whose module does not exist says where it was looked for."""
    with pytest.raises(plugins.UnknownPartError, match="needs a module 'no_such_module' beside the space file"):
        plugins.settings_class("models", "no_such_module:net")


def test_a_library_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that needs a library that is not installed names it and how to install it."""
    (tmp_path / "needs_more_for_plugins.py").write_text("import a_library_that_nobody_has\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingExtraError, match="pip install a_library_that_nobody_has"):
        plugins.settings_class("models", "needs_more_for_plugins:net")
