"""Ranges: a range in, its middle, its values or its size out."""

import math

from beats_search.space.knobs import Range, exact


def middle(knob: Range) -> float:
    """Return the midpoint, the logarithmic one where `log` is set, rounded to a value that the range allows."""
    return _at(knob, 0.5)


def evenly(knob: Range, points: int) -> tuple[float, ...]:
    """Return `points` values from low to high, evenly on the knob's scale; fewer where it has fewer.

    One point is the middle. ValueError for no points.
    """
    if points < 1:
        raise ValueError(f"a grid needs at least 1 point per range, got {points}")
    if points == 1:
        return (middle(knob),)
    return tuple(dict.fromkeys(_at(knob, index / (points - 1)) for index in range(points)))


def size(knob: Range) -> int | None:
    """Return how many values the range allows, None when it is continuous."""
    step = _step(knob)
    return None if step is None else int((exact(knob.high) - exact(knob.low)) / exact(step)) + 1


def allows(knob: Range, value: float) -> bool:
    """Tell whether a number is one of the values of the range; steps are compared to 1e-8 of a step."""
    step = _step(knob)
    if not knob.low <= value <= knob.high:
        return False
    steps = 0.0 if step is None else (value - knob.low) / step
    return abs(steps - round(steps)) < 1e-8  # noqa: PLR2004 - what Optuna allows


def _step(knob: Range) -> float | None:
    return 1 if knob.integer and knob.step is None else knob.step


def _at(knob: Range, share: float) -> float:
    """Return the value at a share (0…1) of the way; both ends are exact."""
    if share in (0, 1):
        return knob.high if share else knob.low
    if knob.log:
        value = math.exp((1 - share) * math.log(knob.low) + share * math.log(knob.high))
    else:
        value = (1 - share) * knob.low + share * knob.high
    step = _step(knob)
    if step is None:
        return min(max(value, knob.low), knob.high)
    on_grid = exact(knob.low) + math.floor((value - knob.low) / step + 0.5) * exact(step)
    return int(on_grid) if knob.integer else float(on_grid)
