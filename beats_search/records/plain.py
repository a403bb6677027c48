"""Plain: frozen records to JSON-able data and back, by their type hints.

A part becomes the mapping that a user would write, `{"name": "resnet", "width": 32}`. A number that
is not finite becomes null, and null read as a number is NaN. Every member of a union of records
carries its class name under `"is"`; an optional record is null or itself.
"""

import collections.abc
import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Final, Literal, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from beats_search.records.part import Part, Scalar, Setting

Plain: TypeAlias = Union[Mapping[str, "Plain"], list["Plain"], str, int, float, bool, None]  # noqa: UP007 - a forward reference has no |
Record = TypeVar("Record")
Value = TypeVar("Value")

_LARGEST: Final = 2**63


def to_plain(value: object) -> Plain:
    """Turn a record into mappings, lists, strings, finite numbers, booleans and nulls."""
    match value:
        case Part(name=name, settings=settings):
            return {"name": name, **{key: to_plain(setting) for key, setting in settings}}
        case float() if not math.isfinite(value):
            return None
        case None | bool() | int() | float() | str():
            return value
        case tuple() | list():
            return [to_plain(item) for item in value]
        case Mapping():
            return {str(key): to_plain(item) for key, item in value.items()}
    if is_dataclass(value):
        return {entry.name: to_plain(getattr(value, entry.name)) for entry in fields(value)}
    raise TypeError(f"a record holds plain data only, got {type(value).__name__}: {value!r}")


def from_plain(kind: type[Record], data: Plain) -> Record:
    """Read back what `to_plain` wrote for a record of class `kind`; TypeError when it does not fit."""
    return cast("Record", _reader(cast("Hashable", kind))(data))


def tagged(value: object) -> Plain:
    """Turn a member of a union of records into plain data that names its class."""
    return {"is": type(value).__name__, **cast("dict[str, Plain]", to_plain(value))}


def from_tagged(kinds: tuple[type[Record], ...], data: Plain) -> Record:
    """Read back what `tagged` wrote for a record of one of `kinds`."""
    if not isinstance(data, Mapping):
        raise TypeError(f"a tagged record is a mapping, got {type(data).__name__}")
    names = {kind.__name__: kind for kind in kinds}
    kind = names.get(str(data.get("is")))
    if kind is None:
        raise TypeError(f"a record is one of {', '.join(names)}, got {data.get('is')!r}")
    return from_plain(kind, {key: item for key, item in data.items() if key != "is"})


@cache
def _reader(kind: Hashable) -> Callable[[Any], Any]:
    """Return what reads data of a kind; a run has tens of thousands of each."""
    if is_dataclass(kind):
        return _record_reader(cast("type", kind)) if kind is not Part else _read_part
    optional = [each for each in get_args(kind) if is_dataclass(each)] if get_origin(kind) is UnionType else []
    if optional:
        read = _reader(cast("Hashable", optional[0]))
        return lambda data: None if data is None else read(data)
    if get_origin(kind) is tuple:
        return _tuple_reader(get_args(kind))
    if get_origin(kind) is collections.abc.Mapping:
        read = _reader(get_args(kind)[1])
        return lambda data: {key: read(item) for key, item in data.items()}
    return _scalar_reader(kind)


def _scalar_reader(kind: Hashable) -> Callable[[Plain], Plain]:
    """Return what reads a scalar of a kind, of several, or one of some literals; all else is read as it is."""
    if kind is float:
        return _read_number
    kinds = get_args(kind) if get_origin(kind) in {UnionType, Union} else (kind,)
    literals = {value for each in kinds if get_origin(each) is Literal for value in get_args(each)}
    types = tuple(each for each in kinds if each in {str, int, float, bool, NoneType})
    if len(types) + any(get_origin(each) is Literal for each in kinds) == 0:
        return lambda data: data
    types += (int,) if float in types else ()

    def read(data: Plain) -> Plain:
        fits = isinstance(data, types) or (isinstance(data, str) and data in literals)
        if not fits:
            raise TypeError(f"{getattr(kind, '__name__', kind)} is expected, got {data!r:.50}")
        return _of_size(data)

    return read


def _read_number(data: Plain) -> float:
    if data is None:
        return math.nan
    if not isinstance(data, int | float):
        raise TypeError(f"a number is expected, got {data!r:.50}")
    return _of_size(data)


def _of_size(data: Value) -> Value:
    if isinstance(data, int) and abs(data) > _LARGEST:
        raise OverflowError("a number has more digits than any that is measured")
    return data


def _read_part(data: Plain) -> Part:
    settings = [(key, _setting(item)) for key, item in cast("Mapping[str, Any]", data).items() if key != "name"]
    name = cast("Mapping[str, Any]", data)["name"]
    if not isinstance(name, str):
        raise TypeError(f"the name of a part is expected, got {name!r:.50}")
    return Part(name=name, settings=tuple(settings))


def _setting(data: Plain) -> Setting:
    if isinstance(data, list):
        return tuple(_scalar(item) for item in data)
    return _scalar(data)


def _scalar(data: Plain) -> Scalar:
    if isinstance(data, Mapping | list):
        raise TypeError(f"a setting is a scalar or a list of them, got {data!r:.50}")
    return _of_size(data)


def _record_reader(kind: type) -> Callable[[Plain], object]:
    readers = {name: _reader(hint) for name, hint in get_type_hints(kind).items()}

    def read(data: Plain) -> object:
        if not isinstance(data, Mapping):
            raise TypeError(f"{kind.__name__} is a mapping, got {type(data).__name__}")
        try:
            return kind(**{key: readers[key](item) for key, item in data.items()})
        except KeyError:
            unknown = data.keys() - readers.keys()
            if not unknown:
                raise
            raise TypeError(f"{kind.__name__} has no field {', '.join(sorted(unknown))}") from None

    return read


def _tuple_reader(kinds: tuple[Any, ...]) -> Callable[[Plain], tuple[object, ...]]:
    readers = [_reader(kind) for kind in kinds if kind is not Ellipsis]
    any_length = len(readers) < len(kinds)  # tuple[X, ...]

    def read(data: Plain) -> tuple[object, ...]:
        if not isinstance(data, list | tuple):
            raise TypeError(f"a tuple is written as a list, got {type(data).__name__}")
        if any_length:
            return tuple(map(readers[0], data))
        return tuple(each(item) for each, item in zip(readers, data, strict=True))

    return read
