"""YAML trees: values that know the place where they were written, and how messages quote them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from beats_search.records.part import Scalar
from beats_search.records.plain import Plain
from beats_search.space.reading import Place

_MOST_QUOTED: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class YamlScalar:
    """One value: text, a finite number, a boolean or nothing."""

    value: Scalar
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class YamlList:
    """A list of values."""

    items: tuple["Yaml", ...]
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class YamlEntry:
    """A key with its value; the place is the key's."""

    key: str
    value: "Yaml"
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class YamlMap:
    """A mapping whose keys are text, each there once."""

    entries: tuple[YamlEntry, ...]
    place: Place

    def entry(self, key: str) -> YamlEntry | None:
        """Return the entry of a key, None when there is none."""
        return next((entry for entry in self.entries if entry.key == key), None)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys in the order of the text."""
        return tuple(entry.key for entry in self.entries)


@dataclass(frozen=True, slots=True, kw_only=True)
class YamlBroken:
    """A value that could not be read; its mistake has been reported."""

    place: Place


Yaml: TypeAlias = YamlScalar | YamlList | YamlMap | YamlBroken


def from_plain(data: Plain, place: Place) -> Yaml:
    """Return plain data as a tree, as if it had been written at one place."""
    match data:
        case list():
            return YamlList(items=tuple(from_plain(item, place) for item in data), place=place)
        case Mapping():
            entries = (YamlEntry(key=key, value=from_plain(item, place), place=place) for key, item in data.items())
            return YamlMap(entries=tuple(entries), place=place)
        case _:
            return YamlScalar(value=data, place=place)


def to_python(tree: Yaml) -> object:
    """Return a tree as dicts, lists and scalars; a broken value becomes None."""
    match tree:
        case YamlScalar(value=value):
            return value
        case YamlList(items=items):
            return [to_python(item) for item in items]
        case YamlMap(entries=entries):
            return {entry.key: to_python(entry.value) for entry in entries}
        case YamlBroken():
            return None


def in_words(tree: Yaml) -> str:
    """Return a value as a message quotes it; of a list or a mapping its kind."""
    match tree:
        case YamlScalar(value=value):
            return quoted(value)
        case YamlList(items=items):
            return "a list" if items else "an empty list"
        case _:
            return "a mapping"


def quoted(value: object) -> str:
    """Return a value as a user would write it, text in quotes and cut where it is long."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str() if len(value) > _MOST_QUOTED:
            return repr(value[:_MOST_QUOTED] + "…")
        case tuple() | list():
            return f"[{', '.join(quoted(item) for item in value)}]"
    return repr(value)
