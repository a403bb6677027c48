"""Measures: the name of a measured value and a number in, the words and digits a person reads out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from beats_search.records.outcome import Finished, Interval

_NOTHING = "–"
_SECONDS_PER_MINUTE = 60
_SECONDS_PER_HOUR = 3600
_KB_PER_MB = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """How a measured value is spoken of: its word, its axis with the unit, the words for best and better."""

    word: str
    axis: str
    best: str
    better: str


MEASURES: Final[Mapping[str, Measure]] = {
    "accuracy": Measure(
        word="accuracy",
        axis="Validation accuracy",
        best="most accurate",
        better="more accurate",
    ),
    "latency_ms": Measure(
        word="latency",
        axis="Latency of one call (ms)",
        best="fastest",
        better="faster",
    ),
    "size_kb": Measure(
        word="size",
        axis="Size of the model file (kB)",
        best="smallest",
        better="smaller",
    ),
    "macs": Measure(
        word="work",
        axis="Multiply–accumulates for one input",
        best="lightest",
        better="lighter",
    ),
    "energy_mj": Measure(
        word="energy",
        axis="Energy of one call (mJ)",
        best="thriftiest",
        better="thriftier",
    ),
}
"""All that can be an objective, as in `records.objective.DIRECTIONS`."""


def measured(name: str, value: float) -> str:
    """Return a measured value with its unit, `0.0412 ms`.

    >>> measured("accuracy", 0.98234), measured("macs", 1_234_567.0)
    ('0.982', '1.23 M')
    """
    if not math.isfinite(value):
        return _NOTHING
    match name:
        case "accuracy":
            return f"{value:.3f}"
        case "latency_ms":
            return f"{significant(value)} ms"
        case "energy_mj":
            return f"{significant(value)} mJ"
        case "size_kb":
            return f"{significant(value)} kB" if value < _KB_PER_MB else f"{significant(value / _KB_PER_MB)} MB"
    return counted(value)


def spoken(name: str, outcome: Finished) -> str:
    """Return a value of a trial by its word, with its 95 % interval where it has one."""
    value, interval = outcome.value(name), outcome.interval(name)
    ends = f" {between(name, interval)}" if interval.low < interval.high else ""
    return f"{MEASURES[name].word} {measured(name, value)}{ends}"


def between(name: str, interval: Interval) -> str:
    """Return the ends of an interval of accuracy or milliseconds without their unit, `[0.0401, 0.0423]`."""
    low, high = (measured(name, end).partition(" ")[0] for end in (interval.low, interval.high))
    return f"[{low}, {high}]"


def times(ratio: float | None) -> str:
    """Return a ratio as a factor, `5.3×`; a dash where there is none."""
    return _NOTHING if ratio is None or not math.isfinite(ratio) else f"{significant(ratio, 2)}×"


def counted(value: float) -> str:
    """Return a large count in short, `1.23 M`."""
    for scale, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= scale:
            return f"{significant(value / scale)}{unit}"
    return f"{value:.0f}"


def significant(value: float, digits: int = 3) -> str:
    """Return a number with so many significant digits, never with an exponent.

    >>> significant(0.041234), significant(15.26), significant(1526.0)
    ('0.0412', '15.3', '1526')
    """
    if not math.isfinite(value):
        return _NOTHING
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    return f"{value:.{max(0, digits - 1 - magnitude)}f}"


def duration(seconds: float) -> str:
    """Return a time span in its two largest units.

    >>> duration(4.26), duration(754.0), duration(7380.0)
    ('4.3 s', '12 min 34 s', '2 h 3 min')
    """
    if not math.isfinite(seconds):
        return _NOTHING
    if seconds < _SECONDS_PER_MINUTE:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _SECONDS_PER_HOUR:
        return f"{whole // _SECONDS_PER_MINUTE} min {whole % _SECONDS_PER_MINUTE} s"
    return f"{whole // _SECONDS_PER_HOUR} h {whole % _SECONDS_PER_HOUR // _SECONDS_PER_MINUTE} min"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, `1 trial` or `3 trials`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
