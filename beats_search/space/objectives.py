"""Objectives: the mappings `objectives` and `constraints` in, what counts and the limits out."""

import math
import re
from typing import Final

from beats_search.records.objective import DIRECTIONS, Constraint, Objective
from beats_search.space.reading import Reading
from beats_search.space.yaml_tree import Yaml, YamlBroken, YamlEntry, YamlMap, YamlScalar, in_words

LIMIT: Final = r"^(<=|>=)\s*([-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)$"
"""What a limit looks like: `<= 500`."""

DEFAULT_OBJECTIVES: Final = (
    Objective(name="accuracy", direction="maximize"),
    Objective(name="latency_ms", direction="minimize"),
)
_MOST_OBJECTIVES: Final = 3


def read_objectives(entry: YamlEntry | None, reading: Reading) -> tuple[Objective, ...]:
    """Return two or three objectives, accuracy among them; what is wrong is reported."""
    if entry is None:
        return DEFAULT_OBJECTIVES
    written = entry.value
    entries = _known_entries(written, "objectives", "objective", reading)
    found = tuple(objective for each in entries if (objective := _read_objective(each, reading)))
    if isinstance(written, YamlMap) and not 1 < len(written.entries) <= _MOST_OBJECTIVES:
        reading.mistake(written.place, f"objectives are two or three, got {len(written.entries)}")
    elif isinstance(written, YamlMap) and written.entry("accuracy") is None:
        reading.mistake(written.place, f"accuracy needs to be an objective, got {', '.join(written.keys)}")
    return found


def read_constraints(entry: YamlEntry | None, reading: Reading) -> tuple[Constraint, ...]:
    """Return the limits; what is wrong is reported."""
    entries = () if entry is None else _known_entries(entry.value, "constraints", "measured value", reading)
    return tuple(constraint for each in entries if (constraint := _read_constraint(each, reading)))


def _known_entries(written: Yaml, path: str, what: str, reading: Reading) -> tuple[YamlEntry, ...]:
    if not isinstance(written, YamlMap):
        if not isinstance(written, YamlBroken):
            reading.mistake(written.place, f"{path} needs a mapping ({', '.join(DIRECTIONS)}), got {in_words(written)}")
        return ()
    for entry in written.entries:
        if entry.key not in DIRECTIONS:
            reading.unknown(entry.place, f"{what} {{}}", entry.key, tuple(DIRECTIONS))
    return tuple(entry for entry in written.entries if entry.key in DIRECTIONS)


def _read_objective(entry: YamlEntry, reading: Reading) -> Objective | None:
    direction = DIRECTIONS[entry.key]
    if isinstance(entry.value, YamlBroken):
        return None
    if not isinstance(entry.value, YamlScalar) or entry.value.value != direction:
        reading.mistake(entry.value.place, f"objectives.{entry.key} needs {direction!r}, got {in_words(entry.value)}")
        return None
    return Objective(name=entry.key, direction=direction)


def _read_constraint(entry: YamlEntry, reading: Reading) -> Constraint | None:
    written = entry.value
    if isinstance(written, YamlBroken):
        return None
    value = written.value if isinstance(written, YamlScalar) else None
    match = re.fullmatch(LIMIT, value) if isinstance(value, str) else None
    if match is None or not math.isfinite(float(match[2])):
        example = '">= 0.9"' if entry.key == "accuracy" else '"<= 500"'
        reading.mistake(
            written.place, f"constraints.{entry.key} needs a limit such as {example}, got {in_words(written)}"
        )
        return None
    return Constraint(name=entry.key, sign="<=" if match[1] == "<=" else ">=", bound=float(match[2]))
