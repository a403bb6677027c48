"""Values: a YAML value and the field that it is for in, the checked value out."""

import json
from pathlib import Path
from typing import Annotated, Any, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from beats_search import plugins
from beats_search.records.part import Scalar, Setting
from beats_search.space.durations import seconds_of
from beats_search.space.grammar import Field, literals_of, words_for
from beats_search.space.knobs import Leaf
from beats_search.space.reading import Reading
from beats_search.space.yaml_tree import Yaml, YamlBroken, YamlList, in_words, to_python


def read_value(written: Yaml, field: Field, reading: Reading) -> Leaf | None:
    """Return the fixed value for a field; None when it does not fit, which is then reported.

    A whole number becomes a float where a number is asked for; nothing else is converted.
    """
    if _is_broken(written):
        return None
    try:
        return Leaf(value=_fitted(written, field, reading.folder))
    except (ValueError, TypeError) as error:
        reading.mistake(written.place, str(error))
        return None


def default_value(field: Field, folder: Path) -> Leaf | None:
    """Return the default of a field as if it had been written; None when a plan cannot hold it."""
    try:
        plain = as_setting(field.default)
    except TypeError:
        return None
    try:
        return Leaf(value=_placed(as_setting(_validated(field.hint, plain)), field, folder))
    except (ValueError, TypeError, PydanticUserError):
        return Leaf(value=plain)  # the default of a user's function need not fit its hint: `width: int = None`


def as_setting(value: object) -> Setting:
    """Return plain data as a setting, lists as tuples; TypeError when a plan cannot hold it."""
    if isinstance(value, list | tuple):
        return tuple(_as_scalar(item) for item in value)
    return _as_scalar(value)


def _as_scalar(value: object) -> Scalar:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a setting is a value or a list of values, got {type(value).__name__}")


def _is_broken(written: Yaml) -> bool:
    if isinstance(written, YamlList):
        return any(_is_broken(item) for item in written.items)
    return isinstance(written, YamlBroken)


def _fitted(written: Yaml, field: Field, folder: Path) -> Setting:
    value = to_python(written)
    if field.is_duration and isinstance(value, str):
        return seconds_of(value)
    try:
        return _placed(as_setting(_validated(field.hint, value)), field, folder)
    except ValidationError as error:
        raise ValueError(_refusal(written, field, error.errors()[0]["msg"])) from error
    except (_WrongTypeError, TypeError) as error:
        raise ValueError(_refusal(written, field, str(error))) from error
    except PydanticUserError as error:
        raise ValueError(f"{field.path} cannot be set: YAML cannot hold {words_for(field.hint)}") from error


class _WrongTypeError(ValueError):
    """A boolean for a number, or the other way round."""


def _validated(hint: Any, value: object) -> object:  # noqa: ANN401 - a type hint
    """Return the value as pydantic reads it from JSON, strictly; unlike there, `Literal[1]` does not take true."""
    found: object = TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
    if isinstance(found, bool | int) and type(found) is not type(value):
        raise _WrongTypeError(f"true and 1 are different, got {value!r}")
    return found


def _refusal(written: Yaml, field: Field, why: str) -> str:
    if get_origin(field.hint) is Annotated:
        return f"{field.path}: {why}, got {in_words(written)}"
    text = f"{field.path} needs {words_for(field.hint)}, got {in_words(written)}"
    value = to_python(written)
    names = literals_of(field.hint)
    if isinstance(value, str) and names:
        return text + plugins.did_you_mean(value, names)
    if isinstance(value, bool | int | float) and "text" in words_for(field.hint):
        return f"{text}; put it in quotes"
    return text


def _placed(value: Setting, field: Field, folder: Path) -> Setting:
    """Return a path relative to the file as an absolute one, anything else as it is."""
    if field.is_path and isinstance(value, str):
        return str((folder / Path(value).expanduser()).resolve())
    return value
