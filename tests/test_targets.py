"""Targets: which machines may measure is said once for a run, and kept."""

from pathlib import Path

import pytest
from cli_calls import SPACE, call, write

from beats_search.app.targets import VARIABLE, check_target
from beats_search.records.errors import CommandError, SpaceError
from beats_search.space.knobs import SearchSpace
from beats_search.space.schema import read_space

pytestmark = pytest.mark.usefixtures("toys_importable")


def read(runtime: str) -> SearchSpace:
    """Read the tiny space with a runtime."""
    return read_space(f"{SPACE}runtime: {runtime}\n", file=Path("space.yaml"))


@pytest.mark.parametrize(
    ("runtime", "same"),
    [
        ("{name: onnxruntime, threads: 2, target: board}", "{name: onnxruntime, threads: 2}"),
        ("{choice: [onnxruntime, torch_eager], target: board}", "{choice: [onnxruntime, torch_eager]}"),
        ("{target: board}", "onnxruntime"),
    ],
)
def test_a_target_is_of_the_run_and_of_no_plan(runtime: str, same: str) -> None:
    """Plans are those of the space without it."""
    assert read(runtime).target == "board"
    assert read(same).target == ""
    assert read(runtime).canonical() == read(same).canonical()


@pytest.mark.parametrize("wrong", ["[board]", "{choice: [a, b]}", "3", "''"])
def test_a_target_that_is_no_name_is_told_at_its_line(wrong: str) -> None:
    """A text, one for the whole run."""
    with pytest.raises(SpaceError, match=r"runtime\.target") as told:
        read(f"{{name: onnxruntime, target: {wrong}}}")
    assert [mistake.line for mistake in told.value.mistakes] == [SPACE.count("\n") + 1]


def test_an_option_has_no_target_of_its_own() -> None:
    """All runtimes of a run are compared on the same machine."""
    with pytest.raises(SpaceError, match="unknown setting 'target'"):
        read("{choice: [{name: onnxruntime, target: board}, openvino]}")


@pytest.mark.parametrize(("here", "words"), [("", "not known what this one is"), ("server", "this one is 'server'")])
def test_another_machine_is_refused(here: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the way to say that it is one."""
    monkeypatch.setenv(VARIABLE, here)
    with pytest.raises(CommandError, match=rf"'board' may measure, and .*{words}; {VARIABLE}=board says"):
        check_target(read("{target: board}"))


def test_a_machine_of_the_kind_may_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    """So may any where the space names none."""
    monkeypatch.setenv(VARIABLE, "board")
    check_target(read("{target: board}"))
    check_target(read("onnxruntime"))


@pytest.mark.parametrize("command", ["run", "check"])
def test_nothing_is_measured_elsewhere(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither command begins."""
    monkeypatch.delenv(VARIABLE, raising=False)
    refused = call(command, write(tmp_path, f"{SPACE}runtime: {{target: board}}\n"))
    assert refused.exit_code == 2
    assert "runtime.target" in refused.output
