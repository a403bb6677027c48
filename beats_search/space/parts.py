"""Parts: a name, or a name with settings, in; a part whose settings may be open out."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from beats_search import plugins
from beats_search.records.errors import MissingExtraError
from beats_search.space.fields import Shape, read_fields
from beats_search.space.grammar import Field, fields_of, shelf_of, words_for
from beats_search.space.knobs import Choice, Leaf, Node, PartNode, plain_node
from beats_search.space.open_values import may_be_knob, read_open_value, read_options
from beats_search.space.reading import Place, Reading
from beats_search.space.values import default_value
from beats_search.space.yaml_tree import Yaml, YamlBroken, YamlMap, YamlScalar, in_words

_KEYS: Final = ("name", "choice")


def read_part(written: Yaml, field: Field, reading: Reading) -> PartNode | Choice | None:
    """Return the part, or the choice of parts, that was written; None when it does not fit, which is then reported."""
    if isinstance(written, YamlMap) and "choice" in written.keys and "name" not in written.keys:
        return _read_choice(written, field, reading) if may_be_knob(written.place, field, reading) else None
    return _read_one(written, field, reading)


def name_of(written: Yaml) -> str | None:
    """Return the name of a part as it was written, None where it has none."""
    if isinstance(written, YamlMap):
        entry = written.entry("name")
        return None if entry is None else name_of(entry.value)
    return written.value if isinstance(written, YamlScalar) and isinstance(written.value, str) else None


def _read_choice(written: YamlMap, field: Field, reading: Reading) -> Choice | None:
    items = read_options(written, field.path, reading)
    labels = _labels(items)
    options: dict[str, PartNode] = {}
    for label, item in zip(labels, items, strict=True):
        option = _read_option(item, replace(field, path=f"{field.path}.{label}"), reading)
        if option and plain_node(option) in [plain_node(other) for other in options.values()]:
            reading.mistake(item.place, f"the options at {field.path} need to differ, {option.name!r} is there twice")
        elif option:
            options[label] = option
    if not items or len(options) != len(items):
        return None
    for disagreement in _disagreements(options):
        reading.mistake(written.place, f"the options at {field.path} need the same {disagreement}")
    return Choice(path=field.path, labels=tuple(options), options=tuple(options.values()))


def _disagreements(options: Mapping[str, PartNode]) -> Iterator[str]:
    """Yield each setting that may not be a knob, and yet would be one: what it is in which options."""
    values: dict[str, dict[Node, list[str]]] = {}
    for label, option in options.items():
        known = fields_of(plugins.settings_class(option.shelf, option.name), "", knob=True)
        for name, value in option.fields:
            if not known[name].knob:
                values.setdefault(name, {}).setdefault(value, []).append(label)
    for name, found in values.items():
        if len(found) > 1:
            got = " and ".join(f"{_in_words(value)} ({', '.join(labels)})" for value, labels in found.items())
            yield f"{name}, which is fixed for a whole run, got {got}"


def _in_words(value: Node) -> str:
    return str(value.value) if isinstance(value, Leaf) else "a knob"


def _read_option(written: Yaml, field: Field, reading: Reading) -> PartNode | None:
    if isinstance(written, YamlMap) and "choice" in written.keys:
        path = field.path.rpartition(".")[0]
        reading.mistake(written.place, f"an option at {path} needs to be a part, got a choice; list its options here")
        return None
    return _read_one(written, field, reading)


def _labels(items: tuple[Yaml, ...]) -> tuple[str, ...]:
    """Return the names, the second of a name as `name#2`."""
    seen: Counter[str] = Counter()
    labels = []
    for item in items:
        name = name_of(item) or ""
        seen[name] += 1
        labels.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return tuple(labels)


def _read_one(written: Yaml, field: Field, reading: Reading) -> PartNode | None:
    shelf = shelf_of(field.hint) or ""
    name = name_of(written)
    if name is None:
        _report_no_name(written, field, reading)
        return None
    shape = _shape(shelf, name, field, written.place, reading)
    if shape is None:
        return None
    read = partial(read_open_value, reading=reading)
    default = partial(default_value, folder=reading.folder)
    fields = read_fields(_settings(written), shape, read, default, reading)
    return None if fields is None else PartNode(shelf=shelf, name=name, fields=fields)


def _settings(written: Yaml) -> YamlMap:
    entries = written.entries if isinstance(written, YamlMap) else ()
    return YamlMap(entries=tuple(entry for entry in entries if entry.key != "name"), place=written.place)


def _shape(shelf: str, name: str, field: Field, place: Place, reading: Reading) -> Shape | None:
    """Look a part up and return its settings; a user's module may do anything when it is imported."""
    part = f"{plugins.singular(shelf)} {name!r}"
    try:
        make: type[Any] = plugins.settings_class(shelf, name)
        return Shape(
            make=make, fields=fields_of(make, field.path, knob=field.knob), key=f"setting {{}} of {part}", name=name
        )
    except plugins.UnknownPartError as error:
        reading.mistake(place, str(error))
    except MissingExtraError as error:
        _report_missing(name, place, error, reading)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the import of a user's module runs foreign code
        reading.mistake(place, f"{part} cannot be loaded: {type(error).__name__}: {error}")
    return None


def _report_missing(name: str, place: Place, error: MissingExtraError, reading: Reading) -> None:
    module = name.partition(":")[0]
    missing = getattr(error.__cause__, "name", None)
    if ":" in name and missing and f"{module}.".startswith(f"{missing}."):
        reading.mistake(place, f"there is no module {missing!r} for {name!r} in {reading.folder.resolve()}")
    else:
        reading.missing_extra(place, str(error))


def _report_no_name(written: Yaml, field: Field, reading: Reading) -> None:
    needs = words_for(field.hint)
    match written:
        case YamlBroken():
            return
        case YamlMap() if (name := written.entry("name")) is not None:
            reading.mistake(name.place, f"{field.path} needs {needs} as name, got {in_words(name.value)}")
        case YamlMap(keys=keys) if {"low", "high"} & set(keys):
            reading.mistake(written.place, f"a range may not stand at {field.path}: it needs {needs}")
        case YamlMap(keys=keys):
            hints = [plugins.did_you_mean(key, _KEYS) for key in keys]
            hint = next((hint for hint in hints if "did you mean" in hint), "; allowed: (name, choice)")
            reading.mistake(written.place, f"{field.path} needs {needs}, got a mapping without a name{hint}")
        case _:
            reading.mistake(written.place, f"{field.path} needs {needs}, got {in_words(written)}")
