"""Axes: the values to be shown in, the range, scale and ticks of an axis out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from beats_search.report.measures import significant

_FINE: Final = 0.08
_LOG_FROM_SPREAD: Final = 5.0
_ROOM: Final = 0.06
_HEADROOM: Final = 0.12
_LEAST_ROOM: Final = 0.01
_LEAST_SPAN: Final = 0.02
_STEPS: Final = (1, 2, 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """An axis in plain numbers: `low` and `high` are its ends in data units, None where plotly decides.

    `floor` is the lowest value there is, below `low` where some are out of sight.
    """

    title: str
    log: bool = False
    low: float | None = None
    high: float | None = None
    floor: float | None = None
    decimals: int | None = None

    def share(self, value: float) -> float:
        """Return where a value lies: 0 at the low end, 1 at the high end, beyond them outside."""
        low, high = self.low or 0.0, 1.0 if self.high is None else self.high
        if self.log:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)

    def layout(self) -> dict[str, Any]:
        """Return the axis as plotly wants it; on a log axis ranges are exponents and ticks are 1, 2, 5."""
        layout: dict[str, Any] = {"title": {"text": self.title, "standoff": 14}}
        if self.decimals is not None:
            layout["tickformat"] = f".{self.decimals}f"
        if self.low is None or self.high is None:
            return layout
        if not self.log:
            return {**layout, "range": [self.low, self.high]}
        ticks = _log_ticks(self.low, self.high)
        return {
            **layout,
            "type": "log",
            "range": [math.log10(self.low), math.log10(self.high)],
            "tickvals": ticks,
            "ticktext": [significant(tick, 1) for tick in ticks],
        }


def whole_axis(title: str, values: Sequence[float]) -> Axis:
    """Return an axis that shows all values, logarithmic when the largest is over 5 times the smallest."""
    shown = [value for value in values if math.isfinite(value)]
    if not shown:
        return Axis(title=title)
    low, high = min(shown), max(shown)
    if low > 0 and high / low > _LOG_FROM_SPREAD:
        room = (high / low) ** _ROOM
        return Axis(title=title, log=True, low=low / room, high=high * room)
    room = max(_ROOM * (high - low), _LEAST_ROOM * abs(high), 1e-9)
    return Axis(title=title, low=low - room, high=high + room)


def focused_axis(title: str, shares: Sequence[float], leading: Sequence[float]) -> Axis:
    """Return an axis of shares on which the leading ones, or the ends of their intervals, fill two thirds.

    Shares far below the leading ones fall out of the range, so that one hopeless trial does not
    flatten the front.
    """
    shown = [value for value in shares if math.isfinite(value)]
    top = [value for value in leading if math.isfinite(value)]
    if not top or not shown:
        return whole_axis(title, shares)
    span = max(max(top) - min(top), _LEAST_SPAN)
    low = max(min([*shown, *top]) - _HEADROOM * span, min(top) - span / 2)
    high = max([*shown, *top]) + _HEADROOM * span
    return Axis(title=title, low=low, high=high, floor=min([*shown, low]), decimals=2 if span > _FINE else 3)


def _log_ticks(low: float, high: float) -> list[float]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**exponent for exponent in exponents for step in _STEPS]
    return [tick for tick in ticks if low <= tick <= high]
