"""Targets: the mapping at `runtime` in, the kind of machine that it names, and the mapping without it, out.

Which machines may measure is a matter of the whole run, whatever runtimes it compares, and of no plan.
"""

from dataclasses import replace
from typing import Final

from beats_search.space.grammar import Field
from beats_search.space.knobs import Leaf
from beats_search.space.open_values import read_open_value
from beats_search.space.reading import Reading
from beats_search.space.yaml_tree import YamlEntry, YamlMap

TARGET: Final = "target"
_RUNTIME: Final = "runtime"
_FIELD: Final = Field(name=TARGET, path=f"{_RUNTIME}.{TARGET}", hint=str, default="", knob=False)


def read_target(tree: YamlMap, reading: Reading) -> str:
    """Return the target of a space; empty where any machine may measure."""
    runtime = tree.entry(_RUNTIME)
    if runtime is None or not isinstance(runtime.value, YamlMap) or runtime.value.entry(TARGET) is None:
        return ""
    entry = next(each for each in runtime.value.entries if each.key == TARGET)
    found = read_open_value(entry.value, _FIELD, reading)
    if isinstance(found, Leaf) and not found.value:
        reading.mistake(entry.value.place, f"{_FIELD.path} needs the name of a kind of machine, got none")
    return str(found.value) if isinstance(found, Leaf) else ""


def without_target(tree: YamlMap) -> YamlMap:
    """Return a space's mapping without its target, and without a runtime that has nothing else to say."""
    entries = (_without(entry) if entry.key == _RUNTIME else entry for entry in tree.entries)
    return replace(tree, entries=tuple(entry for entry in entries if entry is not None))


def _without(runtime: YamlEntry) -> YamlEntry | None:
    if not isinstance(runtime.value, YamlMap) or runtime.value.entry(TARGET) is None:
        return runtime
    rest = tuple(entry for entry in runtime.value.entries if entry.key != TARGET)
    return replace(runtime, value=replace(runtime.value, entries=rest)) if rest else None
