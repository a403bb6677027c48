"""Plans: a mapping and a record class in, the record with open fields out. The type hints are the grammar."""

from collections.abc import Mapping
from dataclasses import MISSING, is_dataclass
from functools import partial
from typing import Any

from beats_search.records.plain import to_plain
from beats_search.space.fields import Shape, read_fields
from beats_search.space.grammar import Field, fields_of, list_shelf_of, shelf_of
from beats_search.space.knobs import Block, Node
from beats_search.space.open_values import KNOB_KEYS, read_open_value
from beats_search.space.parts import read_part
from beats_search.space.reading import Place, Reading
from beats_search.space.techniques import read_techniques
from beats_search.space.values import default_value
from beats_search.space.yaml_tree import Yaml, YamlBroken, YamlEntry, YamlMap, from_plain, in_words


def read_record(written: Yaml, record: type[Any], path: str, reading: Reading, *, knob: bool = True) -> Block | None:
    """Return the record that was written at `path`, defaults filled in; None when something was reported.

    `knob=False` refuses knobs everywhere in it.
    """
    fields = fields_of(record, path, knob=knob)
    if isinstance(written, YamlBroken):
        return None
    if not isinstance(written, YamlMap):
        reading.mistake(written.place, f"{path} needs a mapping ({', '.join(fields)}), got {in_words(written)}")
        return None
    if set(written.keys) & {*KNOB_KEYS} - set(fields):
        allowed = f"it may stand at one of its settings ({', '.join(fields)})"
        reading.mistake(written.place, f"a knob may not stand at {path} as a whole; {allowed}")
        return None
    shape = Shape(make=record, fields=fields, key=f"key {{}} in {path}")
    read, default = partial(_read, reading=reading), partial(_default, place=written.place, reading=reading)
    found = read_fields(_with_required_records(written, fields), shape, read, default, reading)
    return None if found is None else Block(record=record, fields=found)


def _with_required_records(written: YamlMap, fields: Mapping[str, Field]) -> YamlMap:
    """Return the mapping with an empty record for each one that is missing, so that its own gaps are reported."""
    missing = [
        name
        for name, field in fields.items()
        if is_dataclass(field.hint) and field.default is MISSING and not written.entry(name)
    ]
    empty = YamlMap(entries=(), place=written.place)
    added = tuple(YamlEntry(key=name, value=empty, place=written.place) for name in missing)
    return YamlMap(entries=(*written.entries, *added), place=written.place)


def _read(written: Yaml, field: Field, reading: Reading) -> Node | None:
    if shelf_of(field.hint):
        return read_part(written, field, reading)
    if list_shelf_of(field.hint):
        return read_techniques(written, field, reading)
    if isinstance(field.hint, type) and is_dataclass(field.hint):
        return read_record(written, field.hint, field.path, reading, knob=field.knob)
    return read_open_value(written, field, reading)


def _default(field: Field, place: Place, reading: Reading) -> Node | None:
    if shelf_of(field.hint) or list_shelf_of(field.hint) or is_dataclass(field.hint):
        return _read(from_plain(to_plain(field.default), place), field, reading)
    return default_value(field, reading.folder)
