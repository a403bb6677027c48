"""Widths: how much to remove and what channels are worth in, how many channels each layer keeps out."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_ROUNDING = 1e-9
_SAME = 6
"""Decimals beyond which two channels are worth the same."""


def kept_channels(width: int, ratio: float, multiple: int) -> int:
    """Return how many of `width` channels stay: at least a share 1 - `ratio`, rounded up to a multiple."""
    return rounded_up(width * (1 - ratio), width, multiple)


def rounded_up(wanted: float, width: int, multiple: int) -> int:
    """Return `wanted` rounded up to a multiple above 0, but no more than the `width` that there is."""
    return min(width, max(multiple, math.ceil(wanted / multiple - _ROUNDING) * multiple))


def best_channels(scores: Mapping[str, Tensor], count: int) -> dict[str, int]:
    """Return how many channels of each layer are among the `count` best of all.

    Scores are compared as multiples of their layer's mean, equal ones by their places within their
    layers, so that layers of which nothing is known yet get narrower by equal shares.
    """
    relative = torch.cat([each / each.mean().clamp_min(torch.finfo(each.dtype).tiny) for each in scores.values()])
    places = torch.cat([(_places(each) + 1) / len(each) for each in scores.values()])
    by_place = places.argsort(stable=True, descending=True)
    order = by_place[relative[by_place].round(decimals=_SAME).argsort(stable=True, descending=True)]
    best = torch.zeros(len(order), dtype=torch.bool)
    best[order[:count]] = True
    split = torch.split(best, [len(each) for each in scores.values()])
    return {name: int(kept.sum()) for name, kept in zip(scores, split, strict=True)}


def weakest(scores: Tensor, count: int) -> list[int]:
    """Return the indices of the lowest scores, of equal ones the first."""
    found: list[int] = scores.argsort(stable=True)[:count].tolist()
    return found


def cubic_ratios(ratio: float, steps: int) -> tuple[float, ...]:
    """Return the ratio after each step, most of it early (Zhu & Gupta 2017, equation 1); the last is `ratio`."""
    return tuple(ratio * (1 - (1 - step / steps) ** 3) for step in range(1, steps + 1))


def dealt(epochs: int, steps: int) -> Sequence[int]:
    """Return the epochs of each step: equal ones, and the rest for the last, which has most to recover from."""
    return (*(epochs // steps,) * (steps - 1), epochs // steps + epochs % steps)


def _places(scores: Tensor) -> Tensor:
    """Return the place of each score in ascending order, the first of equal ones lowest."""
    return scores.argsort(stable=True).argsort()
