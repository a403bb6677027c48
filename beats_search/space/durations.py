"""Durations: `1h30m`, `90s` or a number in, seconds out."""

import re
from typing import Final

DURATION: Final = r"^(?=[0-9])([0-9.]+h)?([0-9.]+m)?([0-9.]+s)?$"
"""What a written duration looks like, for a JSON Schema."""

_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0}
_PIECE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([hms])")


def seconds_of(text: str) -> float:
    """Return the seconds of a duration such as `10m`, `90s` or `1h30m`; ValueError for anything else.

    >>> seconds_of("1h30m")
    5400.0
    """
    pieces = _PIECE.findall(text)
    units = "".join(unit for _, unit in pieces)
    whole = "".join(number + unit for number, unit in pieces) == text
    if not pieces or not whole or not re.fullmatch("h?m?s?", units):
        raise ValueError(f"a duration is written like 10m, 90s, 1h30m or as seconds, got {text!r}")
    return sum(float(number) * _UNITS[unit] for number, unit in pieces)
