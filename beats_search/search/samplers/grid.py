"""Grid: every plan of the space once, in shuffled order, with ranges cut into a few points."""

import random
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Final

from optuna.samplers import BaseSampler

from beats_search.records.errors import CommandError
from beats_search.search.domain import Domain, Params
from beats_search.search.proposal import Given

__all__ = ["Grid"]

_FINEST: Final = 1000
_MOST: Final = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Tries every plan once, with `points` values a range, in an order shuffled by the seed.

    The shuffle spreads a grid that is cut short by its budget over the whole space. In a run that
    another sampler began, the grid goes on where it would be after as many proposals.
    """

    points: int = 5

    def __post_init__(self) -> None:
        """Refuse a grid without points, or finer than anyone could walk."""
        if not 1 <= self.points <= _FINEST:
            raise ValueError(f"grid.points needs to be at least 1 and at most {_FINEST}, got {self.points}")

    def make(self, seed: int, number: int, domain: Domain) -> BaseSampler | None:
        """Return the sampler of one proposal, None after the last; CommandError for a grid beyond all budgets."""
        plans = _shuffled(domain, self.points, seed)
        return Given(domain, plans[number]) if number < len(plans) else None


@lru_cache(maxsize=1)
def _shuffled(domain: Domain, points: int, seed: int) -> tuple[Params, ...]:
    plans = list(islice(domain.grid(points), _MOST + 1))
    if len(plans) > _MOST:
        rule = f"grid: {points} points a range make more than {_MOST:,} plans"
        raise CommandError(f"{rule}; use fewer points, or the sampler sobol, which spreads any number of trials")
    random.Random(seed).shuffle(plans)
    return tuple(plans)
