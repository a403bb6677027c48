"""Pins: the mapping `reference` in, values for knobs of the reference by dotted path out."""

import json
from collections.abc import Mapping
from typing import Final

from beats_search.records.part import Scalar
from beats_search.space.draw import fits, index_of, knob_in_words, knobs_in
from beats_search.space.knobs import Block, Choice, Range
from beats_search.space.reading import Reading
from beats_search.space.yaml_tree import YamlBroken, YamlEntry, YamlList, YamlMap, YamlScalar, in_words, to_python

PINNED: Final = ("model", "training", "runtime")
"""What a pin may reach into; the reference is never compressed."""


def read_pins(entry: YamlEntry | None, plan: Block | None, reading: Reading) -> Mapping[str, Scalar]:
    """Return the pins, of a choice by label; what is not a knob of `plan`, or a value it does not allow, is reported.

    Without a plan, which is wrong itself, there is nothing to compare with and nothing is returned.
    """
    if entry is None or plan is None or isinstance(entry.value, YamlBroken):
        return {}
    written = entry.value
    allowed = {knob.path: knob for knob in knobs_in(plan) if knob.path.partition(".")[0] in PINNED}
    if not isinstance(written, YamlMap):
        reading.mistake(
            written.place, f"reference needs a mapping such as {{model.width: 64}}, got {in_words(written)}"
        )
        return {}
    pins: dict[str, Scalar] = {}
    for pin in written.entries:
        if pin.key not in allowed:
            reading.unknown(pin.place, "knob {} in reference", pin.key, tuple(allowed))
        else:
            pins |= _read_pin(pin, allowed[pin.key], reading)
    return pins


def _read_pin(entry: YamlEntry, knob: Range | Choice, reading: Reading) -> Mapping[str, Scalar]:
    match entry.value:
        case YamlScalar(value=value) if fits(knob, value):
            return {knob.path: _as_stored(value, knob)}
        case YamlList() as items if fits(knob, text := json.dumps(to_python(items))):
            return {knob.path: text}
        case YamlBroken():
            return {}
    rule = f"reference: {knob.path} is one of {knob_in_words(knob)}"
    reading.mistake(entry.value.place, f"{rule}, got {in_words(entry.value)}")
    return {}


def _as_stored(value: Scalar, knob: Range | Choice) -> Scalar:
    """Return the label for a choice, a float for a range of floats: 1 is 1.0 there."""
    if isinstance(knob, Choice):
        return knob.labels[index_of(value, knob.labels) or 0]
    return value if knob.integer or not isinstance(value, int) else float(value)
