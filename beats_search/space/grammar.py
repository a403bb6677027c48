"""Grammar: a record class in, the fields that a space file may give it out.

The type hints of the records are the grammar. A hint `Annotated[Part, Shelf(...)]` stands for a part
from that shelf. Metadata of a field: `knob: False` asks for a fixed value, `path: True` marks a path
that is relative to the space file, `duration: True` takes texts such as `10m`.
"""

import dataclasses
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from beats_search import plugins
from beats_search.records.part import Shelf
from beats_search.space.yaml_tree import quoted


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of a record: where it stands, what fits, and its default (MISSING when it is required)."""

    name: str
    path: str
    hint: Any
    default: object
    knob: bool
    is_path: bool = False
    is_duration: bool = False


def fields_of(record: type[Any], path: str, *, knob: bool) -> Mapping[str, Field]:
    """Return the fields of a record that stands at `path`, by name; no knobs within when `knob` is False."""
    hints = get_type_hints(record, include_extras=True)
    return {
        entry.name: Field(
            name=entry.name,
            path=f"{path}.{entry.name}" if path else entry.name,
            hint=hints[entry.name],
            default=_default(entry),
            knob=knob and bool(entry.metadata.get("knob", True)),
            is_path=bool(entry.metadata.get("path", False)),
            is_duration=bool(entry.metadata.get("duration", False)),
        )
        for entry in dataclasses.fields(record)
        if entry.init
    }


def shelf_of(hint: object) -> str | None:
    """Return the shelf of a hint that stands for a part, else None."""
    marks = [mark for mark in get_args(hint)[1:] if isinstance(mark, Shelf)] if get_origin(hint) is Annotated else []
    return marks[0].name if marks else None


def list_shelf_of(hint: object) -> str | None:
    """Return the shelf of a hint that stands for a list of parts, else None."""
    return shelf_of(get_args(hint)[0]) if get_origin(hint) is tuple else None


def number_kinds(hint: object) -> frozenset[type]:
    """Return which numbers fit a hint: none, `{int}`, `{float}` (whole ones are converted), or both as they are."""
    members = _members(hint)
    return frozenset({int, float}) if Any in members else frozenset({int, float}) & frozenset(members)


def words_for(hint: object) -> str:
    """Return what fits a hint as a message says it: `a number`, `text`, `one of 'a', 'b'`, `a model (cnn, mlp)`."""
    shelf = shelf_of(hint)
    if shelf:
        return f"a {plugins.singular(shelf)} ({', '.join(plugins.names(shelf))})"
    return " or ".join(dict.fromkeys(_word(member) for member in _members(hint)))


def literals_of(hint: object) -> tuple[str, ...]:
    """Return the texts that a hint lists by name."""
    listed = [get_args(member) for member in _members(hint) if get_origin(member) is Literal]
    return tuple(value for values in listed for value in values if isinstance(value, str))


def _default(entry: "dataclasses.Field[Any]") -> object:
    return entry.default if entry.default_factory is MISSING else entry.default_factory()


def _members(hint: object) -> tuple[Any, ...]:
    """Return the alternatives of a union; an annotated type counts as the type."""
    if get_origin(hint) is Annotated:
        return _members(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(member for alternative in get_args(hint) for member in _members(alternative))
    return (hint,)


def _word(member: Any) -> str:  # noqa: ANN401 - a type hint
    if get_origin(member) is Literal:
        values = [quoted(value) for value in get_args(member)]
        return values[0] if len(values) == 1 else f"one of {', '.join(values)}"
    if get_origin(member) in (tuple, list):
        inner = [item for item in get_args(member) if item is not Ellipsis]
        return f"a list, each {words_for(inner[0])}" if inner else "a list"
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "nothing"}
    return {**plain, Any: "a value", tuple: "a list", list: "a list"}.get(member, f"a value of type {member}")
