"""Triggers: windows in progress in, which of them fire now out, each with its agreement ρ.

A region fires when its window is full, or when ρ = ‖A‖²/S reaches the trigger: 1 in expectation for
pure noise, n for n equal gradients. In the global scope all regions share one ρ and fire together.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from beats_search.records.plan import AccumulationPlan
from beats_search.training.windows import Window, square_norms

OverRanks: TypeAlias = Callable[[list[float]], list[float]]
"""Numbers of this process in, their sums over all processes that train together out."""


def due(windows: Sequence[Window], plan: AccumulationPlan, over_ranks: OverRanks) -> Mapping[int, float]:
    """Return the windows that fire now by their index, with their ρ; NaN for a plan that has no use for it."""
    full = [index for index, window in enumerate(windows) if window.count >= plan.window]
    if plan.plain:
        return dict.fromkeys(full, math.nan)
    if plan.trigger == "never":
        found = agreements(windows, plan, over_ranks) if full else []
        return {index: found[index] for index in full}
    trigger, found = plan.trigger, agreements(windows, plan, over_ranks)
    return {
        index: rho
        for index, rho in enumerate(found)
        if windows[index].count and (rho >= trigger or windows[index].count >= plan.window)
    }


def agreements(windows: Sequence[Window], plan: AccumulationPlan, over_ranks: OverRanks) -> list[float]:
    """Return ρ of every window."""
    totals = square_norms([window.total if window.count > 1 else [] for window in windows])
    squares = [window.squares for window in windows]
    agreed = over_ranks([*totals, *squares])
    totals, squares = agreed[: len(windows)], agreed[len(windows) :]
    counts = [window.count for window in windows]
    if plan.scope == "global":
        ones = [total if count > 1 else square for total, square, count in zip(totals, squares, counts, strict=True)]
        return [agreement(sum(ones), sum(squares), max(counts))] * len(windows)
    return [agreement(*each) for each in zip(totals, squares, counts, strict=True)]


def agreement(square: float, squares: float, count: int) -> float:
    """Return ‖A‖²/S, kept within its bounds 0…n against rounding; n for one gradient, and when all are zero."""
    return min(square / squares, float(count)) if squares and count > 1 else float(count)
