"""Fields: a mapping and the fields that it may have in, one node for each of them out."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from typing import Any, TypeAlias

from beats_search.space.checks import Sites, check
from beats_search.space.grammar import Field, words_for
from beats_search.space.knobs import Node
from beats_search.space.reading import Reading
from beats_search.space.yaml_tree import Yaml, YamlMap

ReadNode: TypeAlias = Callable[[Yaml, Field], Node | None]
"""Reads what was written for a field; None when it does not fit, which it has reported."""

ReadDefault: TypeAlias = Callable[[Field], Node | None]
"""Returns the default of a field; None when a plan cannot hold it, so that it is left to the class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a mapping is read as: a class with its fields, and how messages call a key (`key {} in training`)."""

    make: type[Any]
    fields: Mapping[str, Field]
    key: str
    name: str = ""


def read_fields(
    written: YamlMap, shape: Shape, read: ReadNode, default: ReadDefault, reading: Reading
) -> tuple[tuple[str, Node], ...] | None:
    """Return the fields in the order of the class, defaults filled in; None when something was reported."""
    unknown = [entry for entry in written.entries if entry.key not in shape.fields]
    for entry in unknown:
        reading.unknown(entry.place, shape.key, entry.key, tuple(shape.fields))
    nodes = {name: _read_field(written, field, read, default, reading) for name, field in shape.fields.items()}
    good = {name: node for name, node in nodes.items() if node is not None}
    required = {name for name, field in shape.fields.items() if field.default is MISSING}
    sites = Sites(whole=written.place, fields={entry.key: entry.place for entry in written.entries}, name=shape.name)
    fine = required <= set(good) and check(shape.make, good, sites, reading)
    complete = all(name in good for name in written.keys)
    return tuple(good.items()) if fine and complete else None


def _read_field(written: YamlMap, field: Field, read: ReadNode, default: ReadDefault, reading: Reading) -> Node | None:
    entry = written.entry(field.name)
    if entry is not None:
        return read(entry.value, field)
    if field.default is MISSING:
        reading.mistake(written.place, f"{field.path} is missing: it needs {words_for(field.hint)}")
        return None
    return default(field)
