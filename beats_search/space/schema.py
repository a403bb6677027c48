"""Schema: the text of a space file in, a `SearchSpace` out, or all of its mistakes at once."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any, Final, cast

from beats_search import plugins
from beats_search.records.plan import TrialPlan
from beats_search.records.search_plan import SearchPlan
from beats_search.space.changes import apply
from beats_search.space.draw import Replay, build
from beats_search.space.grammar import Field
from beats_search.space.json_schema import NAME, json_schema
from beats_search.space.knobs import Block, Leaf, SearchSpace
from beats_search.space.objectives import read_constraints, read_objectives
from beats_search.space.open_values import read_open_value
from beats_search.space.pins import read_pins
from beats_search.space.plans import read_record
from beats_search.space.reading import Place, Reading
from beats_search.space.targets import read_target, without_target
from beats_search.space.yaml_lines import read_yaml, to_text
from beats_search.space.yaml_tree import Yaml, YamlBroken, YamlMap, YamlScalar, in_words, quoted

__all__ = ["json_schema", "read_space"]

_RECORDS: Final[Mapping[str, type[Any]]] = {"": TrialPlan, "search": SearchPlan}
_PLAN_KEYS: Final = tuple(entry.name for entry in fields(TrialPlan))
_KEYS: Final = ("name", *_PLAN_KEYS, "objectives", "constraints", "reference", "search")
_NAME: Final = Field(name="name", path="name", hint=str, default=MISSING, knob=False)


def read_space(text: str, *, file: Path, changes: Sequence[str] = ()) -> SearchSpace:
    """Return the space that `text` describes, with `changes` (`path=value`) made to it first.

    `file` names the text in messages; its folder is where relative paths start and where the user's
    own modules are. Raises SpaceError with all mistakes, or MissingExtraError when the space is right
    but needs libraries that are not installed.
    """
    reading = Reading(file.parent)
    plugins.search_first_in(file.parent)
    tree = apply(_read_mapping(text, file, reading), changes, _RECORDS, reading)
    _report_unknown_keys(tree, reading)
    name = _read_name(tree, reading)
    target = read_target(tree, reading)
    plan = read_record(_plan_part(without_target(tree)), TrialPlan, "", reading)
    search = read_record(_value(tree, "search"), SearchPlan, "search", reading, knob=False)
    objectives = read_objectives(tree.entry("objectives"), reading)
    constraints = read_constraints(tree.entry("constraints"), reading)
    pins = read_pins(tree.entry("reference"), plan, reading)
    seed = _checked_seed(tree, plan, reading)
    if name is None or plan is None or search is None or not reading.is_clean:
        raise reading.error()
    return SearchSpace(
        name=name,
        seed=seed,
        plan=plan,
        objectives=objectives,
        constraints=constraints,
        reference=pins,
        search=cast("SearchPlan", build(search, Replay({}))),
        target=target,
        file=str(file),
        text=to_text(tree) if changes else text,
    )


def _read_mapping(text: str, file: Path, reading: Reading) -> YamlMap:
    """Return the mapping in a text; raise for a text that is none, because nothing else can be said about it."""
    tree = read_yaml(text, lambda line: Place(file=str(file), line=line), reading)
    if isinstance(tree, YamlMap):
        return tree
    if not isinstance(tree, YamlBroken):
        empty = isinstance(tree, YamlScalar) and tree.value is None
        got = "an empty file" if empty else in_words(tree)
        reading.mistake(tree.place, f"a space file is a mapping with the keys {', '.join(_KEYS)}; got {got}")
    raise reading.error()


def _report_unknown_keys(tree: YamlMap, reading: Reading) -> None:
    for entry in tree.entries:
        if entry.key not in _KEYS:
            reading.unknown(entry.place, "key {}", entry.key, _KEYS)


def _read_name(tree: YamlMap, reading: Reading) -> str | None:
    entry = tree.entry("name")
    if entry is None:
        reading.mistake(tree.place, "name is missing: it needs text, and becomes the name of a folder")
        return None
    found = read_open_value(entry.value, _NAME, reading)
    name = found.value if isinstance(found, Leaf) else None
    if isinstance(name, str) and not re.fullmatch(NAME, name):
        rule = "name needs to be 1 to 100 letters, digits, '-', '_' or '.', and not '.' or '..'"
        reading.mistake(entry.value.place, f"{rule}, got {quoted(name)}")
    return name if isinstance(name, str) else None


def _plan_part(tree: YamlMap) -> YamlMap:
    return replace(tree, entries=tuple(entry for entry in tree.entries if entry.key in _PLAN_KEYS))


def _value(tree: YamlMap, key: str) -> Yaml:
    entry = tree.entry(key)
    return YamlMap(entries=(), place=tree.place) if entry is None else entry.value


def _checked_seed(tree: YamlMap, plan: Block | None, reading: Reading) -> int:
    found = dict(plan.fields)["seed"] if plan else None
    seed = found.value if isinstance(found, Leaf) and isinstance(found.value, int) else 0
    if seed < 0:
        reading.mistake(_value(tree, "seed").place, f"seed needs to be at least 0, got {seed}")
    return seed
