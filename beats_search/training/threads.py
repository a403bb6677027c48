"""Threads: clocks of the wall and of this process in, on how many threads to compute out.

Threads of one computation wait for each other at every layer. Where another process takes a part of
a core, each of these waits costs a slice of the scheduler's time: with one of two cores busy, a
width-64 ResNet on 8x8 images took 10.6 s on two threads and 3.3 s on one (3 epochs, Zen 4, a single
run each; other loads were worse). So the threads are watched, and given up for one when they starve.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, final

import torch

_LOOK_EVERY_S: Final = 0.3
_STARVED: Final = 0.75
"""Below this share of the cores that they were meant to have, threads mostly wait."""

Clock = Callable[[], float]


@final
class Threads:
    """How many threads torch computes with: all that it has, or one; from all to one when they starve."""

    def __init__(self, *, parallel: bool, wall: Clock = time.perf_counter, worked: Clock = time.process_time) -> None:
        """Begin with all threads if `parallel`, else with one. `worked` counts seconds of all threads."""
        self._parallel = parallel
        self._wall = wall
        self._worked = worked
        self._since = (wall(), worked())

    @contextmanager
    def held(self) -> Iterator[None]:
        """Compute what is within on the chosen number of threads, and put torch's own back after."""
        before = torch.get_num_threads()
        if not self._parallel:
            torch.set_num_threads(1)
        self._since = (self._wall(), self._worked())
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def look(self) -> None:
        """Look, every now and then, at what the threads got since the last look, and give up all but one."""
        count, (wall, worked) = torch.get_num_threads(), self._since
        passed = self._wall() - wall
        if count == 1 or passed < _LOOK_EVERY_S:
            return
        if self._worked() - worked < _STARVED * count * passed:
            torch.set_num_threads(1)
        self._since = (self._wall(), self._worked())
