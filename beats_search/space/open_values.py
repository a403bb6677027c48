"""Open values: a YAML value and its field in, a fixed value, a range or a choice of values out."""

from dataclasses import replace
from typing import Final

from beats_search.records.part import Scalar
from beats_search.space.grammar import Field, number_kinds, words_for
from beats_search.space.knobs import Choice, Leaf, Range, label_of
from beats_search.space.reading import Place, Reading
from beats_search.space.values import read_value
from beats_search.space.yaml_tree import Yaml, YamlEntry, YamlList, YamlMap, in_words, quoted

RANGE_KEYS: Final = ("low", "high", "log", "step")
KNOB_KEYS: Final = ("choice", *RANGE_KEYS)


def read_open_value(written: Yaml, field: Field, reading: Reading) -> Leaf | Range | Choice | None:
    """Return what was written for a field, None when it does not fit, which is then reported."""
    if not isinstance(written, YamlMap):
        return read_value(written, field, reading)
    unknown = [entry for entry in written.entries if entry.key not in KNOB_KEYS]
    for entry in unknown:
        reading.unknown(entry.place, f"key {{}} of a knob at {field.path}", entry.key, KNOB_KEYS)
    if unknown or not may_be_knob(written.place, field, reading):
        return None
    if "choice" in written.keys:
        return _read_choice(written, field, reading)
    return _read_range(written, field, reading)


def may_be_knob(place: Place, field: Field, reading: Reading) -> bool:
    """Tell whether a knob may stand at a field; where not, it is reported."""
    if not field.knob:
        reading.mistake(place, f"a knob may not stand at {field.path}: it needs a fixed value")
    return field.knob


def read_options(written: YamlMap, path: str, reading: Reading) -> tuple[Yaml, ...]:
    """Return the options of `{choice: [...]}`; none where it is written wrongly, which is then reported."""
    others = [entry for entry in written.entries if entry.key != "choice"]
    for other in others:
        reading.mistake(other.place, f"a choice has no other keys, got {other.key!r} at {path}")
    entry = written.entry("choice")
    options = written if entry is None else entry.value
    if not isinstance(options, YamlList) or not options.items:
        reading.mistake(options.place, f"a choice at {path} needs a list of options, got {in_words(options)}")
        return ()
    return () if others else options.items


def _read_choice(written: YamlMap, field: Field, reading: Reading) -> Choice | None:
    items = read_options(written, field.path, reading)
    options: dict[Scalar, Leaf] = {}
    for item in items:
        option = _read_option(item, field, reading)
        if option is None:
            continue
        label = label_of(option.value)
        if label in options:
            same = f"{quoted(option.value)} equals {quoted(options[label].value)}"
            reading.mistake(item.place, f"the options at {field.path} need to differ, {same}")
        options[label] = option
    if not items or len(options) != len(items):
        return None
    return Choice(path=field.path, labels=tuple(options), options=tuple(options.values()))


def _read_option(written: Yaml, field: Field, reading: Reading) -> Leaf | None:
    if isinstance(written, YamlMap):
        reading.mistake(written.place, f"an option at {field.path} needs to be a fixed value, got a mapping")
        return None
    return read_value(written, field, reading)


def _read_range(written: YamlMap, field: Field, reading: Reading) -> Range | None:
    kinds = number_kinds(field.hint)
    if not kinds:
        rule = f"a range may not stand at {field.path}: it needs {words_for(field.hint)}"
        reading.mistake(written.place, f"{rule}; list values with {{choice: [...]}}")
        return None
    missing = [key for key in ("low", "high") if written.entry(key) is None]
    if missing:
        reading.mistake(
            written.place, f"a range at {field.path} needs low and high, {' and '.join(missing)} is missing"
        )
    hint = int | float if len(kinds) > 1 else next(iter(kinds))
    numbers = {entry.key: _read_number(entry, field, hint, reading) for entry in written.entries if entry.key != "log"}
    log = _read_log(written.entry("log"), field, reading)
    found = {key: number for key, number in numbers.items() if number is not None}
    if missing or len(found) != len(numbers) or log is None:
        return None
    integer = all(isinstance(number, int) for number in found.values())
    numbers_of_a_kind = {key: number if integer else float(number) for key, number in found.items()}
    try:
        return Range(path=field.path, log=log, integer=integer, **numbers_of_a_kind)
    except ValueError as error:
        reading.mistake(written.place, f"{field.path}: {error}")
        return None


def _read_number(entry: YamlEntry, field: Field, hint: object, reading: Reading) -> float | None:
    here = replace(field, hint=hint, path=f"{field.path}.{entry.key}", is_duration=False)
    found = read_value(entry.value, here, reading)
    if found is None or not isinstance(found.value, int | float):
        return None
    if entry.key == "step" or read_value(entry.value, field, reading):
        return found.value
    return None


def _read_log(entry: YamlEntry | None, field: Field, reading: Reading) -> bool | None:
    if entry is None:
        return False
    found = read_value(entry.value, replace(field, hint=bool, path=f"{field.path}.log"), reading)
    return None if found is None else bool(found.value)
