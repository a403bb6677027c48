"""Thinning: more points than a plot can draw in, those of them out that look the same."""

import math
from collections.abc import Sequence
from typing import Final

from beats_search.pareto import Point
from beats_search.report.traces import Axes

MOST_POINTS: Final = 2_000
"""How many points a plot draws of one kind; a browser takes about a second for so many."""

_FINEST: Final = 400
"""Cells along an axis in the finest grid: two pixels each on a usual screen."""


def apart(points: Sequence[Point], axes: Axes, most: int = MOST_POINTS) -> list[int]:
    """Return the indices of at most `most` points, given as x and y, in their order.

    They are all, or the first one in each cell of a grid that has the scales of the axes and is as fine as that allows.
    """
    if len(points) <= most:
        return list(range(len(points)))
    along = [axes.x.share(x) for x, _ in points]
    upright = [axes.y.share(y) for _, y in points]
    cells = _FINEST
    while len(kept := _first_of_cells(along, upright, cells)) > most and cells > 1:
        cells = cells * 4 // 5
    return kept[:most]


def _first_of_cells(along: Sequence[float], upright: Sequence[float], cells: int) -> list[int]:
    first: dict[tuple[int, int], int] = {}
    for index, (x, y) in enumerate(zip(along, upright, strict=True)):
        if math.isfinite(x + y):  # what was not measured has no place
            first.setdefault((math.floor(x * cells), math.floor(y * cells)), index)
    return list(first.values())
