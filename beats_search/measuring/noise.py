"""Noise: numbers that scatter in, their centre with an honest interval, or whether they drift, out.

The centre of paired log ratios is the Hodges-Lehmann estimate, its interval Wilcoxon's signed-rank
one (Hollander, Wolfe & Chicken 2014, sections 3.2 and 3.3). It assumes no more than that differences
scatter evenly to both sides. In simulations of sessions that differ by 0.78-1.22, of slow drift and
of bursts, it held the truth in 93-97 % of cases from 9 rounds on; percentile bootstraps of the mean
and of the median of the same rounds held it in 87-95 %, that of the ratio of medians in 94-98 % with
intervals 1.1-1.5 times as wide.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

_Z: Final = 1.959963984540054  # 97.5 % quantile of the normal distribution
_SAME: Final = 1e-9
_RARE: Final = 0.01
_WORTH_TELLING: Final = math.log(1.05)


@dataclass(frozen=True, slots=True, kw_only=True)
class Centre:
    """A centre with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half of the interval."""
        return (self.high - self.low) / 2

    def beside(self, unseen: float) -> "Centre":
        """Return it with an interval that also holds what these numbers cannot show, `unseen` to either side."""
        below, above = self.value - self.low, self.high - self.value
        return replace(self, low=self.value - math.hypot(below, unseen), high=self.value + math.hypot(above, unseen))


def centre_of(differences: NDArray[np.float64]) -> Centre:
    """Return the centre of differences of shape (n,), the median of the means of all pairs of them.

    Fewer than 6 differences allow no 95 % interval; theirs is from the smallest to the largest.
    """
    first, second = np.triu_indices(len(differences))
    means = np.sort((differences[first] + differences[second]) / 2)
    rank = _rank(len(differences))
    return Centre(value=float(np.median(means)), low=float(means[rank]), high=float(means[-1 - rank]))


def scatter_of(values: NDArray[np.float64], beside: NDArray[np.float64]) -> float:
    """Return how far values of shape (n,) are from their median, in the median, over the same of others.

    Where the others do not scatter, nothing is known, and it is taken to be 1.
    """
    own, others = (float(np.median(np.abs(each - np.median(each)))) for each in (values, beside))
    return own / others if others > _SAME else 1.0


def _rank(count: int) -> int:
    """Return how many means lie beyond either end: the normal approximation, at most one rank too cautious."""
    middle = count * (count + 1) / 4
    spread = math.sqrt(count * (count + 1) * (2 * count + 1) / 24)
    return max(0, math.floor(middle - _Z * spread - 0.5))


def drifts(values: NDArray[np.float64]) -> bool:
    """Tell whether positive values of shape (n,) rise or fall over time by a trend that is worth telling.

    It is when Kendall's rank test finds less than 1 % chance for it, and it is more than 5 % in all
    (Theil 1950, Sen 1968).
    """
    logs, order = np.log(values), np.arange(len(values))
    if np.ptp(logs) <= _WORTH_TELLING:
        return False
    trend = float(stats.theilslopes(logs, order).slope) * (len(values) - 1)
    return abs(trend) > _WORTH_TELLING and float(stats.kendalltau(order, logs).pvalue) < _RARE
