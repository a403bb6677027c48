"""Yardstick: a fixed piece of arithmetic in, how long it takes now and how long at best out.

Where a core is shared with a neighbour's thread, as on most rented machines, no counter tells, and a
small model takes 1.6 times as long while the neighbour computes, a large one, which waits for memory,
1.2 times: their ratio is off by a third, and all rounds of such a stretch of 0.3 to 2 s agree. The
arithmetic here takes 1.6 times as long, too. On 2 cores of such a machine a third of 45 s was so; 5 and
95 % of a small model's blocks were below 7.1 and 13.7 microseconds over all, 7.1 and 7.4 over the rest.
"""

import math
import time
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Final, final

import numpy as np

_RUNS: Final = 3
_REMEMBERED: Final = 2048
_BEST: Final = 0.1  # the quantile that counts as best: the very shortest may be a clock's slip
_SLOWER: Final = 1.15


def _sum_of_squares() -> int:
    total = 0
    for number in range(1000):
        total += number * number
    return total


@final
class Yardstick:
    """Takes readings, and remembers the last 2,048: a machine may be fast no more."""

    def __init__(
        self, clock: Callable[[], float] = time.perf_counter, work: Callable[[], object] = _sum_of_squares
    ) -> None:
        """Start with no readings."""
        self._clock = clock
        self._work = work
        self._readings: deque[float] = deque(maxlen=_REMEMBERED)

    def read(self) -> float:
        """Return the seconds that the arithmetic takes now, the shortest of three runs."""
        reading = min(self._run() for _ in range(_RUNS))
        self._readings.append(reading)
        return reading

    def limit(self) -> float:
        """Return the seconds from which on a reading is slow: 15 % more than at best; infinite without readings."""
        return _SLOWER * float(np.quantile(self._readings, _BEST)) if self._readings else math.inf

    def _run(self) -> float:
        began = self._clock()
        self._work()
        return self._clock() - began


@cache
def own_yardstick() -> Yardstick:
    """Return the one of this process."""
    return Yardstick()
