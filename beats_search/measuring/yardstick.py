"""Yardstick: a fixed piece of arithmetic in, how long it takes now and how long at best out.

Where a core is shared with a neighbour's thread, as on most rented machines, no counter tells, and a
small model takes 1.6 times as long while the neighbour computes, a large one, which waits for memory,
1.2 times: their ratio is off by a third, and all rounds of such a stretch of 0.3 to 2 s agree. The
arithmetic here takes 1.6 times as long, too. On 2 cores of such a machine a third of 45 s was so; 5 and
95 % of a small model's blocks were below 7.1 and 13.7 microseconds over all, 7.1 and 7.4 over the rest.

A neighbour who never leaves is not seen: his share is how fast this machine is.
"""

import math
import time
from collections.abc import Callable
from functools import cache
from typing import Final, final

import numpy as np

_RUNS: Final = 3
_REMEMBERED_S: Final = 600
_FEWEST: Final = 60
_BEST: Final = 0.1  # the quantile that counts as best: the very shortest may be a clock's slip
_SLOWER: Final = 1.2
_LATELY_S: Final = 30


def _sum_of_squares() -> int:
    total = 0
    for number in range(1000):
        total += number * number
    return total


@final
class Yardstick:
    """Takes readings, and remembers the shortest of each second.

    Seconds older than ten minutes are forgotten, but for the last 60 that had a reading: a machine may be
    fast no more.
    """

    def __init__(
        self, clock: Callable[[], float] = time.perf_counter, work: Callable[[], object] = _sum_of_squares
    ) -> None:
        """Start with no readings."""
        self._clock = clock
        self._work = work
        self._shortest: dict[int, float] = {}

    def read(self) -> float:
        """Return the seconds that the arithmetic takes now, the shortest of three runs."""
        reading = min(self._run() for _ in range(_RUNS))
        second = int(self._clock())
        if second not in self._shortest:
            self._forget(second - _REMEMBERED_S)
        self._shortest[second] = min(reading, self._shortest.get(second, reading))
        return reading

    def best(self) -> float:
        """Return the seconds of a reading at best; infinite without readings."""
        return float(np.quantile([*self._shortest.values()], _BEST)) if self._shortest else math.inf

    def limit(self) -> float:
        """Return the seconds from which on a reading is slow: a fifth more than at best; infinite without readings."""
        return _SLOWER * self.best()

    def was_fast_lately(self) -> bool:
        """Tell whether a reading of the last 30 s was not slow."""
        limit, since = self.limit(), self._clock() - _LATELY_S
        return any(reading <= limit for second, reading in self._shortest.items() if second >= since)

    def _forget(self, before: float) -> None:
        for second in [*self._shortest][: -(_FEWEST - 1)]:
            if second < before:
                del self._shortest[second]

    def _run(self) -> float:
        began = self._clock()
        self._work()
        return self._clock() - began


@cache
def own_yardstick() -> Yardstick:
    """Return the one of this process."""
    return Yardstick()
