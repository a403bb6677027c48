"""JSON Schema: every record and every part on the shelves in, a schema of space files out.

Draft 2020-12, so that editors complete and check a file while it is written.
"""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, is_dataclass
from inspect import getdoc
from typing import Any, Final, TypeAlias, cast

from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError

from beats_search import plugins
from beats_search.records.errors import MissingExtraError
from beats_search.records.objective import DIRECTIONS
from beats_search.records.plain import Plain, to_plain
from beats_search.records.plan import TrialPlan
from beats_search.records.search_plan import SearchPlan
from beats_search.space.durations import DURATION
from beats_search.space.grammar import Field, fields_of, list_shelf_of, number_kinds, shelf_of
from beats_search.space.objectives import LIMIT
from beats_search.space.targets import TARGET

NAME: Final = r"^(?!\.\.?$)[A-Za-z0-9._-]{1,100}$"
"""What the name of a space looks like; it becomes a folder."""

_Schema: TypeAlias = dict[str, Plain]

_OWN_SHELVES: Final = ("datasets", "models")
_OWN: Final = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
"""What a part of the user's own looks like: `module:name`."""


def json_schema() -> Mapping[str, Plain]:
    """Return the schema; every value that may be a knob accepts the forms of a knob."""
    plan = _record(TrialPlan, knob=True)
    name: _Schema = {"type": "string", "pattern": NAME}
    return plan | {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A search space of beats-search",
        "properties": {
            "name": name,
            **cast("_Schema", plan["properties"]),
            "runtime": _runtime(),
            **_beside_the_plan(),
        },
        "required": ["name", *cast("list[Plain]", plan["required"])],
        "$defs": {
            "range": _range("number"),
            "whole_range": _range("integer"),
            **{_title(shelf, knob=knob): _shelf(shelf, knob=knob) for shelf, knob in sorted(_all_shelves())},
        },
    }


def _beside_the_plan() -> _Schema:
    objectives: _Schema = {name: {"const": direction} for name, direction in DIRECTIONS.items()}
    limits: _Schema = {name: {"type": "string", "pattern": LIMIT} for name in DIRECTIONS}
    pin: _Schema = {"type": ["string", "number", "boolean", "null", "array"]}
    return {
        "objectives": _mapping(objectives, ["accuracy"]) | {"minProperties": 2, "maxProperties": 3},
        "constraints": _mapping(limits, []),
        "reference": {"type": "object", "additionalProperties": pin},
        "search": _record(SearchPlan, knob=False),
    }


def _runtime() -> _Schema:
    """Return the schema of a runtime or a choice of them, each with a target, or of a target alone."""
    target: _Schema = {"type": "string", "minLength": 1}

    def targeted(form: Plain) -> Plain:
        if not isinstance(form, dict):
            return form
        if isinstance(forms := form.get("anyOf"), list):
            return form | {"anyOf": [targeted(each) for each in forms]}
        properties = form.get("properties")
        return form | {"properties": properties | {TARGET: target}} if isinstance(properties, dict) else form

    alone = _mapping({TARGET: target}, [TARGET])
    return {"anyOf": [targeted(_shelf("runtimes", knob=True)), alone]}


def _mapping(properties: _Schema, required: list[str]) -> _Schema:
    needed = {"required": cast("list[Plain]", required)} if required else {}
    return {"type": "object", "properties": properties, **needed, "additionalProperties": False}


def _record(record: type[Any], *, knob: bool) -> _Schema:
    fields = fields_of(record, "", knob=knob)
    properties: _Schema = {name: _value(field) for name, field in fields.items()}
    return _mapping(properties, _required(fields)) | {"description": getdoc(record) or ""}


def _required(fields: Mapping[str, Field]) -> list[str]:
    return [name for name, field in fields.items() if field.default is MISSING]


def _value(field: Field) -> _Schema:
    shelf, list_shelf = shelf_of(field.hint), list_shelf_of(field.hint)
    if shelf:
        return {"$ref": f"#/$defs/{_title(shelf, knob=field.knob)}"} | _default(field)
    if list_shelf:
        return {"type": "array", "items": {"$ref": f"#/$defs/{_title(list_shelf, knob=field.knob)}"}}
    if isinstance(field.hint, type) and is_dataclass(field.hint):
        return _record(field.hint, knob=field.knob)
    fixed = _fixed(field)
    return (_open(fixed, field) if field.knob else fixed) | _default(field)


def _default(field: Field) -> _Schema:
    try:
        return {"default": to_plain(field.default)}
    except TypeError:
        return {}


def _fixed(field: Field) -> _Schema:
    try:
        found = cast("_Schema", TypeAdapter(field.hint).json_schema())
    except PydanticUserError:
        return {}
    if "$defs" in found:  # its references would point to nowhere from here
        return {}
    return {"anyOf": [found, {"type": "string", "pattern": DURATION}]} if field.is_duration else found


def _open(fixed: _Schema, field: Field) -> _Schema:
    kinds = number_kinds(field.hint)
    name = "whole_range" if kinds == {int} else "range"
    ranges: list[Plain] = [{"$ref": f"#/$defs/{name}"}] if kinds else []
    return {"anyOf": [fixed, *ranges, _choice(fixed)]}


def _choice(option: _Schema) -> _Schema:
    return _mapping({"choice": {"type": "array", "minItems": 1, "items": option}}, ["choice"])


def _range(kind: str) -> _Schema:
    number: _Schema = {"type": kind}
    step: _Schema = {"type": kind, "exclusiveMinimum": 0}
    return _mapping({"low": number, "high": number, "log": {"type": "boolean"}, "step": step}, ["low", "high"])


def _title(shelf: str, *, knob: bool) -> str:
    return shelf if knob else f"fixed_{shelf}"


def _all_shelves() -> Iterator[tuple[str, bool]]:
    yield from _shelves(TrialPlan, knob=True)
    yield from _shelves(SearchPlan, knob=False)


def _shelves(record: type[Any], *, knob: bool) -> Iterator[tuple[str, bool]]:
    for field in fields_of(record, "", knob=knob).values():
        shelf = shelf_of(field.hint) or list_shelf_of(field.hint)
        if shelf:
            yield shelf, field.knob
        elif isinstance(field.hint, type) and is_dataclass(field.hint):
            yield from _shelves(field.hint, knob=field.knob)


def _shelf(shelf: str, *, knob: bool) -> _Schema:
    parts = [form for name in plugins.names(shelf) for form in _part(shelf, name, knob=knob)]
    one: _Schema = {"anyOf": [*parts, *_own_parts(shelf)]}
    return {"anyOf": [one, _choice(one)]} if knob else one


def _part(shelf: str, name: str, *, knob: bool) -> list[Plain]:
    """Return the forms of a part: its name alone where no setting is required, and the mapping."""
    try:
        found = plugins.settings_class(shelf, name)
    except MissingExtraError as error:
        unknown: _Schema = {"type": "object", "properties": {"name": {"const": name}}, "required": ["name"]}
        return [{"const": name, "description": str(error)}, unknown]
    fields = fields_of(found, "", knob=knob)
    settings: _Schema = {key: _value(field) for key, field in fields.items()}
    about: _Schema = {"description": getdoc(found) or ""}
    whole = _mapping({"name": {"const": name}, **settings}, ["name", *_required(fields)]) | about
    return [whole] if _required(fields) else [{"const": name} | about, whole]


def _own_parts(shelf: str) -> list[Plain]:
    if shelf not in _OWN_SHELVES:
        return []
    name: _Schema = {"type": "string", "pattern": _OWN}
    return [name, {"type": "object", "properties": {"name": name}, "required": ["name"]}]
