"""Blocks: a callable to open a session and clocks in, the median of some calls out."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, final

import numpy as np

from beats_search.measuring.neighbours import clock_of_others
from beats_search.measuring.yardstick import Yardstick, own_yardstick

Call = Callable[[], object]
OpenSession = Callable[[], Call]
Clock = Callable[[], float]

_WAITED: Final = 0.1
_COPIES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How long to time.

    Timing ends when every interval's half width is within `half_width` (a share of the ratio), after
    `min_rounds` rounds and a quarter of the budget, because a moment does not know how the next ones
    scatter; or when `budget_s` per candidate is spent, after `least_rounds` rounds, the fewest that
    have a 95 % interval. While fewer rounds than that were undisturbed it goes on for up to `patience`
    budgets, unless others compute on this machine or the core has been slow for 30 s, which mostly lasts.

    A block warms up for `warmup_s` and times for `block_s`, with `min_calls` calls each; it is timed up
    to `attempts` times while the process has to wait in it. A block whose share of the budget is spent
    ends sooner, after one call of each.

    So the least, for calls as long as the budget, are 12 calls of each model and of the reference: 24
    for one candidate, 252 for 20 that are timed together.
    """

    half_width: float = 0.03
    budget_s: float = 1.5
    min_rounds: int = 9
    least_rounds: int = 6
    patience: float = 4.0
    block_s: float = 0.004
    warmup_s: float = 0.002
    min_calls: int = 3
    attempts: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """Clocks in seconds: on the wall, one that stands still while this process does not run, and that of others.

    And what tells how fast the core is.
    """

    wall: Clock = time.perf_counter
    processor: Clock = time.process_time
    others: Clock = field(default_factory=clock_of_others)
    yardstick: Yardstick = field(default_factory=own_yardstick)


@dataclass(frozen=True, slots=True)
class Block:
    """Some calls in one session.

    `waited` is the share of the time in which the process did not run, `readings` what the yardstick
    took before and after, in seconds.
    """

    median_ms: float
    calls: int
    waited: float
    readings: tuple[float, float]

    @property
    def interrupted(self) -> bool:
        """Whether the process had to wait for more than a tenth of the time."""
        return self.waited > _WAITED


@final
class Sessions:
    """Opens a fresh session each time; where one takes longer to open than `patience_s`, three in turn."""

    def __init__(self, open_session: OpenSession, patience_s: float, clock: Clock) -> None:
        """Begin with none."""
        self._open_session = open_session
        self._patience_s = patience_s
        self._clock = clock
        self._kept: deque[Call] = deque(maxlen=_COPIES)

    def __call__(self) -> Call:
        """Return the call of a session."""
        if len(self._kept) == _COPIES:
            self._kept.rotate()
            return self._kept[0]
        began = self._clock()
        call = self._open_session()
        if self._clock() - began > self._patience_s:
            self._kept.append(call)
        return call


def time_block(open_session: OpenSession, rules: Protocol, share_s: float, clocks: Clocks) -> Block:
    """Return the first block in which the process did not have to wait, else the one with the least waiting.

    None is repeated once `rules.attempts` shares of the budget are spent.
    """
    end = clocks.wall() + rules.attempts * share_s
    best = _block(open_session, rules, share_s, clocks)
    for _ in range(rules.attempts - 1):
        if not best.interrupted or clocks.wall() >= end:
            break
        best = min(best, _block(open_session, rules, share_s, clocks), key=lambda block: block.waited)
    return best


def _block(open_session: OpenSession, rules: Protocol, share_s: float, clocks: Clocks) -> Block:
    call, patience_s = open_session(), share_s / 2  # for warming up, and for timing
    _times(call, rules.warmup_s, rules.min_calls, patience_s, clocks.wall)
    before = clocks.yardstick.read()
    began, ran = clocks.wall(), clocks.processor()
    times = _times(call, rules.block_s, rules.min_calls, patience_s, clocks.wall)
    ran, spent = clocks.processor() - ran, clocks.wall() - began
    return Block(
        median_ms=1000 * float(np.median(times)),
        calls=len(times),
        waited=max(0.0, 1 - ran / spent) if spent > 0 else 0.0,
        readings=(before, clocks.yardstick.read()),
    )


def _times(call: Call, seconds: float, min_calls: int, patience_s: float, clock: Clock) -> list[float]:
    times: list[float] = []
    spent = 0.0
    while not times or spent < seconds or (len(times) < min_calls and spent < patience_s):
        start = clock()
        call()
        times.append(clock() - start)
        spent += times[-1]
    return times
