"""Checks: a class and its open fields in; what the class refuses about any of their values is reported.

Records and parts check themselves when they are made. So one is made with every knob at its first
value, then with each other value of each knob, then with each pair of them.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, islice, product
from typing import Any, Final, final

from beats_search.records.part import Scalar
from beats_search.space.draw import build
from beats_search.space.knobs import Choice, Node, Range
from beats_search.space.reading import Place, Reading

_MOST_TRIES: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sites:
    """Where a record or a part was written: as a whole and field by field, and its name in messages."""

    whole: Place
    fields: Mapping[str, Place]
    name: str = ""


def check(make: type[Any], fields: Mapping[str, Node], sites: Sites, reading: Reading) -> bool:
    """Tell whether `make` accepts the values that its fields allow; each refusal is reported where it was written."""
    open_fields = {name: node for name, node in fields.items() if isinstance(node, Range | Choice)}
    refusals: dict[Place, str] = {}
    for tried in islice(_tries(open_fields), _MOST_TRIES):
        refusal = _refusal(make, fields, {open_fields[name].path: value for name, value in tried.items()})
        if refusal and refusal not in refusals.values():
            refusals.setdefault(_place(refusal, tuple(tried), sites), refusal)
    for place, refusal in refusals.items():
        named = not sites.name or sites.name in refusal
        reading.mistake(place, refusal if named else f"{sites.name}: {refusal}")
    return not refusals


def _tries(open_fields: Mapping[str, Range | Choice]) -> Iterator[dict[str, float]]:
    yield {}
    for name, knob in open_fields.items():
        yield from ({name: value} for value in _other_values(knob))
    for (one, its_knob), (other, other_knob) in combinations(open_fields.items(), 2):
        for value, other_value in product(_other_values(its_knob), _other_values(other_knob)):
            yield {one: value, other: other_value}


def _other_values(knob: Range | Choice) -> tuple[float, ...]:
    return (knob.high,) if isinstance(knob, Range) else tuple(range(1, len(knob.options)))


def _refusal(make: type[Any], fields: Mapping[str, Node], values: Mapping[str, float]) -> str | None:
    suggest = _FirstBut(values)
    try:
        make(**{name: build(node, suggest) for name, node in fields.items()})
    except (ValueError, TypeError) as error:
        return str(error)
    return None


def _place(refusal: str, tried: tuple[str, ...], sites: Sites) -> Place:
    """Return the line of the field that a refusal names, one that was tried if possible."""
    by_preference = (*tried, *sites.fields)
    named = (name for name in by_preference if re.search(rf"\b{re.escape(name)}\b", refusal))
    name = next(named, tried[-1] if tried else "")
    return sites.fields.get(name, sites.whole)


@final
class _FirstBut:
    """A `Suggest` of first options and lower ends, but for some values; a choice's is an index."""

    def __init__(self, values: Mapping[str, float]) -> None:
        self._values = values

    def real(self, path: str, low: float, high: float, *, log: bool, step: float | None) -> float:
        del high, log, step
        return self._values.get(path, low)

    def integer(self, path: str, low: int, high: int, *, log: bool, step: int | None) -> int:
        del high, log, step
        return int(self._values.get(path, low))

    def choice(self, path: str, labels: tuple[Scalar, ...]) -> int:
        del labels
        return int(self._values.get(path, 0))
