"""YAML: numbers and words as in version 1.2, each with its line; a tree written out reads as the same tree."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beats_search.records.plain import Plain
from beats_search.space.reading import Place, Reading
from beats_search.space.yaml_lines import read_yaml, to_text
from beats_search.space.yaml_tree import Yaml, YamlMap, YamlScalar, from_plain, to_python

HERE = Place(file="a.yaml", line=0)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63) + 1, 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda value: value + 0.0),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=12),
    st.sampled_from(["1e-3", ".5e3", "yes", "~", "1_000", "0o17", "<<", "=", "- a", "a: b", "# c", "2024-01-01", "!x"]),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab-:1", max_size=4), inner, max_size=3),
)


def _read(text: str) -> Yaml:
    reading = Reading(Path())
    tree = read_yaml(text, lambda line: Place(file="a.yaml", line=line), reading)
    assert reading.is_clean
    return tree


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("5E4", 50000.0),
        (".5e3", 500.0),
        ("+.5", 0.5),
        ("1.", 1.0),
        ("-0.0", 0.0),
        ("017", 17),
        ("0o17", 15),
        ("0x1F", 31),
        ("-3", -3),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("0b11", "0b11"),
        ("2024-01-01", "2024-01-01"),
        ("yes", "yes"),
        ("off", "off"),
        ("True", True),
        ("tRUE", "tRUE"),
        ("~", None),
        ("", None),
        ("'1'", "1"),
        ("!!str 1", "1"),
        ("!!int '1'", 1),
        ("%YAML 1.1\n---\nyes", "yes"),
    ],
)
def test_a_word_means_what_yaml_1_2_says(text: str, value: object) -> None:
    """Unquoted words follow the core schema of YAML 1.2 and nothing older."""
    found = to_python(_read(text))
    assert found == value
    assert type(found) is type(value)


def test_minus_zero_is_zero() -> None:
    """Plans that are equal have one fingerprint, so there is one zero only."""
    assert str(to_python(_read("-0.0"))) == "0.0"


def test_every_value_knows_its_line() -> None:
    """Keys and values carry the line they are written in; a value left out stands beside its key."""
    tree = _read("# a comment\na:\n  b: 1\nc:\n\nd: [1,\n 2]\n")
    assert isinstance(tree, YamlMap)
    inner, nothing, items = (entry.value for entry in tree.entries)
    assert [entry.place.line for entry in tree.entries] == [2, 4, 6]
    assert isinstance(inner, YamlMap)
    assert inner.entries[0].value == YamlScalar(value=1, place=Place(file="a.yaml", line=3))
    assert nothing.place.line == 4
    assert items.place.line == 6


def test_an_alias_stands_for_what_its_anchor_names() -> None:
    """Aliases are read as copies, also where a name is used again."""
    tree = _read("a: &x {b: 1}\nc: *x\nd: &x 2\ne: *x")
    assert to_python(tree) == {"a": {"b": 1}, "c": {"b": 1}, "d": 2, "e": 2}


@given(TREES)
def test_what_is_written_out_is_read_back(data: Plain) -> None:
    """A tree as text has the same values of the same types when it is read again."""
    found = to_python(_read(to_text(from_plain(data, HERE))))
    assert repr(found) == repr(data)


@given(st.text(max_size=60))
def test_no_text_is_too_strange(text: str) -> None:
    """Any text gives a tree or a mistake, never an exception."""
    reading = Reading(Path())
    tree = read_yaml(text, lambda line: Place(file="a.yaml", line=line), reading)
    assert tree.place.line >= 1
    assert reading.is_clean or str(reading.error()).startswith("a.yaml:")
