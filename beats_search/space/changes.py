"""Changes: a tree and `--set path=value` texts in, the changed tree out. What is set is checked like the file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, Final, final

from beats_search.records.part import Part
from beats_search.space.grammar import fields_of
from beats_search.space.parts import name_of
from beats_search.space.reading import Place, Reading
from beats_search.space.yaml_lines import read_yaml
from beats_search.space.yaml_tree import Yaml, YamlEntry, YamlList, YamlMap, YamlScalar

_PINS: Final = "reference"
"""The one mapping whose keys have dots."""


def apply(tree: YamlMap, changes: Sequence[str], records: Mapping[str, type[Any]], reading: Reading) -> YamlMap:
    """Return the tree with the changes made one after the other; one that cannot be made is reported.

    `records` says which record stands at a path ("" is the file itself), for the names of default parts.
    """
    defaults = {path: name for at, record in records.items() for path, name in _default_parts(record, at).items()}
    for change in changes:
        tree = _changed(tree, change, defaults, reading)
    return tree


def _default_parts(record: type[Any], path: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for field in fields_of(record, path, knob=True).values():
        if isinstance(field.default, Part):
            found[field.path] = field.default.name
        elif isinstance(field.hint, type) and is_dataclass(field.hint):
            found |= _default_parts(field.hint, field.path)
    return found


def _changed(tree: YamlMap, change: str, defaults: Mapping[str, str], reading: Reading) -> YamlMap:
    place = Place(file=f"--set {change}", line=0)
    path, equals, text = change.partition("=")
    keys = tuple(path.strip().split("."))
    if not equals or not all(keys):
        reading.mistake(place, "a change is written path=value, such as training.epochs=2")
        return tree
    keys = (_PINS, ".".join(keys[1:])) if keys[0] == _PINS and keys[1:] else keys
    value = read_yaml(text, lambda _: place, reading)
    try:
        return _Change(value=value, place=place, defaults=defaults).in_map(tree, keys, "")
    except _NoSuchItemError as error:
        reading.mistake(place, str(error))
        return tree


class _NoSuchItemError(LookupError):
    """A list has no such item."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """A value on its way to its place in a tree; `defaults` names the parts that stand where nothing is written."""

    value: Yaml
    place: Place
    defaults: Mapping[str, str]

    def put(self, tree: Yaml | None, keys: tuple[str, ...], path: str) -> Yaml:
        """Return the tree at `path` with the value at `keys` below it; what is missing on the way is made."""
        if not keys:
            return self.value
        match tree:
            case YamlMap():
                return self.in_map(tree, keys, path)
            case YamlList():
                return self._in_list(tree, keys, path)
            case YamlScalar(value=str() as name):
                return self.in_map(self._part(name), keys, path)
        default = self.defaults.get(path) if tree is None else None
        return self.in_map(self._part(default), keys, path)

    def in_map(self, tree: YamlMap, keys: tuple[str, ...], path: str) -> YamlMap:
        """Return the mapping with the value at `keys`; below a choice, the first key names an option."""
        choice = tree.entry("choice")
        if choice is not None and isinstance(choice.value, YamlList) and keys[0] != "choice":
            return _with(tree, replace(choice, value=self._in_list(choice.value, keys, path)))
        key, *rest = keys
        entry = tree.entry(key)
        inner = self.put(entry.value if entry else None, tuple(rest), f"{path}.{key}" if path else key)
        return _with(tree, YamlEntry(key=key, value=inner, place=entry.place if entry and rest else self.place))

    def _in_list(self, tree: YamlList, keys: tuple[str, ...], path: str) -> YamlList:
        names = [name_of(item) for item in tree.items]
        key, *rest = keys
        index = int(key) if key.isdecimal() else names.index(key) if names.count(key) == 1 else -1
        if not 0 <= index < len(names):
            allowed = ", ".join(name or str(number) for number, name in enumerate(names))
            raise _NoSuchItemError(f"{path} has no item {key!r}, or several ({allowed}); items also count from 0")
        changed = self.put(tree.items[index], tuple(rest), f"{path}.{key}")
        return replace(tree, items=(*tree.items[:index], changed, *tree.items[index + 1 :]))

    def _part(self, name: str | None) -> YamlMap:
        named = YamlEntry(key="name", value=YamlScalar(value=name, place=self.place), place=self.place)
        return YamlMap(entries=() if name is None else (named,), place=self.place)


def _with(tree: YamlMap, new: YamlEntry) -> YamlMap:
    if tree.entry(new.key) is None:
        return replace(tree, entries=(*tree.entries, new))
    return replace(tree, entries=tuple(new if entry.key == new.key else entry for entry in tree.entries))
