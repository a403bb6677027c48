"""A corpus of broken spaces, made of the shipped ones: whatever is broken, the file and the line are told at once."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest
from cli_calls import call

from beats_search.records.errors import SpaceError
from beats_search.space.schema import read_space

SHIPPED: Final = sorted((Path(__file__).resolve().parents[1] / "search_spaces").glob("*.yaml"))
VALUE: Final = re.compile(r"(?P<key>[A-Za-z_]\w*): *(?P<value>[^\s{}\[\],#][^{}\[\],#\n]*|\{[^{}]*\}|\[[^\[\]]*\])")
"""A key and its value, which is a scalar, or a mapping or list without another in it."""

BREAKS: Final[Mapping[str, Callable[[str, str], str]]] = {
    "a mapping that means nothing": lambda key, _: f"{key}: {{nonsense: 1, more: 2}}",
    "a list of lists": lambda key, _: f"{key}: [[1], [2, [3]]]",
    "a key that nobody knows": lambda key, value: f"{key}_zz: {value}",
    "a range that is upside down": lambda key, _: f"{key}: {{low: 5, high: 1}}",
    "a choice of nothing": lambda key, _: f"{key}: {{choice: []}}",
    "a number that is none": lambda key, _: f"{key}: .nan",
    "a bracket too few": lambda key, value: f"{key}: [{value}",
}
"""Ways to break a value, given its key and itself."""


def broken(text: str, how: str) -> Iterator[tuple[str, int]]:
    """Yield a space broken at each of its values in turn, with the line."""
    for found in VALUE.finditer(text):
        start = text.rfind("\n", 0, found.start()) + 1
        if "#" in text[start : found.start()]:
            continue
        instead = BREAKS[how](found["key"], found["value"]) + " "
        yield text[: found.start()] + instead + text[found.end() :], text.count("\n", 0, found.start()) + 1


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda path: path.stem)
def test_a_broken_space_is_told_with_its_line(shipped: Path, how: str) -> None:
    """One mistake at least, at or just below the line that was broken, within a second; never another error."""
    text = shipped.read_text(encoding="utf-8")
    read_space(text, file=shipped)  # what is imported for the first time takes seconds
    cases = list(broken(text, how))[::2]
    assert len(cases) >= 10
    for space, line in cases:
        began = time.perf_counter()
        with pytest.raises(SpaceError) as told:
            read_space(space, file=shipped)
        assert time.perf_counter() - began < 1.0
        lines = [mistake.line for mistake in told.value.mistakes]
        assert how == "a bracket too few" or line in lines, (space.splitlines()[line - 1], told.value)


@pytest.mark.parametrize("how", BREAKS)
def test_the_command_line_ends_with_2_and_names_the_line(how: str, tmp_path: Path) -> None:
    """As `file:line`, and nothing of how it was found out."""
    for index, (text, _) in enumerate(list(broken(SHIPPED[0].read_text(encoding="utf-8"), how))[::6]):
        path = tmp_path / f"{index}.yaml"
        path.write_text(text, encoding="utf-8")
        ended = call("check", path)
        assert ended.exit_code == 2, ended.output
        assert re.search(rf"{index}\.yaml:\d+", ended.output.replace("\n", "")), ended.output
        assert "Traceback" not in ended.output
