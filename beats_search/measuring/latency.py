"""Latency: callables to open sessions and a clock in, a Latency each out. Nothing here knows what is called.

The session is the unit of noise (memory placement), so each block opens a fresh one, warms it up and
gives one median. A round times one block of the reference and of every candidate, in random order;
the ratio and its interval come from the log ratios of the rounds (`noise`), so that whatever slows a
whole round cancels. A block in which the process had to wait for the processor is timed again.

A sitting cannot see how the next one will differ, so its interval is wider than its rounds scatter.
On 2 cores, 4 pairs of files were timed in 72 sittings each, in 10 processes within 10 minutes, while
two trainings of low priority computed. The intervals of the rounds alone, ± 0.6 % to ± 2 % in the
median, held the median of the sittings in 33-61 % of cases. Half of the sittings were within 0.7 %
more; one in ten was off by 10-20 %, in stretches in which the neighbours did something else, and the
rounds of such a stretch agree with one another. Hence 2 % for every sitting, and up to a fifth where
others kept the machine busy; so stated, 91 of 94 further sittings held the median of theirs.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from beats_search.measuring.neighbours import clock_of_others
from beats_search.measuring.noise import Centre, centre_of, drifts
from beats_search.records.outcome import Interval, Latency

Call = Callable[[], object]
OpenSession = Callable[[], Call]
Clock = Callable[[], float]

_LOOK_AGAIN: Final = 1.2  # times as many rounds; looking after each would end on lucky ones
_WAITED: Final = 0.1
_CROWDED: Final = 0.2  # of all cores' time, others'
_SPAN_S: Final = 0.1  # others' time is counted in hundredths of a second
_BETWEEN_SITTINGS: Final = 0.02
_AMONG_OTHERS: Final = 0.18


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How long to time.

    Timing ends when every interval's half width is within `half_width` (a share of the ratio), after
    `min_rounds` rounds and a quarter of the budget, because a moment does not know how the next ones
    scatter; or when `budget_s` per candidate is spent, after `least_rounds` rounds, the fewest that
    have a 95 % interval. A block warms up for `warmup_s` and times for `block_s`, with `min_calls` calls
    each; it is timed up to `attempts` times while the process has to wait in it. A block whose share of
    the budget is spent ends sooner, after one call of each.

    So the least, for calls as long as the budget, are 12 calls of each model and of the reference: 24
    for one candidate, 252 for 20 that are timed together.
    """

    half_width: float = 0.03
    budget_s: float = 1.5
    min_rounds: int = 9
    least_rounds: int = 6
    block_s: float = 0.004
    warmup_s: float = 0.002
    min_calls: int = 3
    attempts: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """Clocks in seconds: on the wall, one that stands still while this process does not run, and that of others."""

    wall: Clock = time.perf_counter
    processor: Clock = time.process_time
    others: Clock = field(default_factory=clock_of_others)


def measure_latency(
    candidate: OpenSession,
    reference: OpenSession,
    *,
    reference_median_ms: float | None = None,
    seed: int = 0,
    protocol: Protocol | None = None,
    clocks: Clocks | None = None,
) -> Latency:
    """Time a candidate against a reference and return its latency on the reference's scale.

    Its 95 % interval is that of the rounds, and 2 % for what differs between sittings; where others
    computed in all rounds, 20 %.

    `reference_median_ms` is the stored median of the reference; without one, the median measured
    here is used. Times are of one call.
    """
    (latency,) = measure_together(
        (candidate,),
        reference,
        reference_median_ms=reference_median_ms,
        seed=seed,
        protocol=protocol,
        clocks=clocks,
    )
    return latency


def measure_together(
    candidates: Sequence[OpenSession],
    reference: OpenSession,
    *,
    reference_median_ms: float | None = None,
    seed: int = 0,
    protocol: Protocol | None = None,
    clocks: Clocks | None = None,
) -> tuple[Latency, ...]:
    """Time candidates side by side against one reference and return their latencies, in their order.

    The other arguments are those of `measure_latency`.
    """
    scale, *found = measure_with_reference(candidates, reference, seed=seed, protocol=protocol, clocks=clocks)
    factor = 1.0 if reference_median_ms is None else reference_median_ms / scale.median_ms
    return tuple(latency.times(factor) for latency in found)


def measure_with_reference(
    candidates: Sequence[OpenSession],
    reference: OpenSession,
    *,
    seed: int = 0,
    protocol: Protocol | None = None,
    clocks: Clocks | None = None,
) -> tuple[Latency, ...]:
    """Time candidates side by side; return the latency of the reference, then theirs, on the scale of its own median.

    The reference's ratio is exactly 1, and the interval of its milliseconds is that of its own blocks.
    """
    rules, clocks = protocol or Protocol(), clocks or Clocks()
    random = np.random.default_rng(seed)
    sessions = (reference, *candidates)
    rounds: list[list[_Block]] = []
    watch = _Watch(clocks)
    budget_s, began = rules.budget_s * len(candidates), clocks.wall()
    share_s = budget_s / (rules.min_rounds * len(sessions))
    look = rules.min_rounds
    while len(rounds) < rules.least_rounds or clocks.wall() < began + budget_s:
        order = random.permutation(len(sessions)).tolist()
        blocks = {place: _steady_block(sessions[place], rules, share_s, clocks) for place in order}
        rounds.append([blocks[place] for place in range(len(sessions))])
        watch.note_round()
        if len(rounds) >= look and clocks.wall() >= began + budget_s / 4:
            if max(_centre(rounds, place).half_width for place in range(1, len(sessions))) <= rules.half_width:
                break
            look = math.ceil(_LOOK_AGAIN * len(rounds))
    crowded = watch.crowded()
    return tuple(_latency(rounds, place, crowded, rules) for place in range(len(sessions)))


@final
class _Watch:
    """Notes which rounds others disturbed: whether they computed for long, judged in spans of some rounds each."""

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self._began = clocks.wall(), clocks.others()
        self._told: list[bool] = []
        self._open = 0

    def note_round(self) -> None:
        """Take in that a round has ended."""
        self._open += 1
        wall, others = self._clocks.wall(), self._clocks.others()
        spent = wall - self._began[0]
        if spent >= _SPAN_S:
            self._told += self._open * [others - self._began[1] > _CROWDED * spent]
            self._began, self._open = (wall, others), 0

    def crowded(self) -> list[bool]:
        """Tell of each round whether others computed in it; of the last few what was told before."""
        return self._told + self._open * (self._told[-1:] or [False])


@dataclass(frozen=True, slots=True)
class _Block:
    median_ms: float
    calls: int
    waited: float

    @property
    def disturbed(self) -> bool:
        return self.waited > _WAITED


def _steady_block(open_session: OpenSession, rules: Protocol, share_s: float, clocks: Clocks) -> _Block:
    """Return the first block in which the process did not have to wait, else the one with the least waiting.

    None is repeated once `rules.attempts` shares of the budget are spent.
    """
    end = clocks.wall() + rules.attempts * share_s
    best = _block(open_session, rules, share_s, clocks)
    for _ in range(rules.attempts - 1):
        if not best.disturbed or clocks.wall() >= end:
            break
        best = min(best, _block(open_session, rules, share_s, clocks), key=lambda block: block.waited)
    return best


def _block(open_session: OpenSession, rules: Protocol, share_s: float, clocks: Clocks) -> _Block:
    call, patience_s = open_session(), share_s / 2  # for warming up, and for timing
    _times(call, rules.warmup_s, rules.min_calls, patience_s, clocks.wall)
    began, ran = clocks.wall(), clocks.processor()
    times = _times(call, rules.block_s, rules.min_calls, patience_s, clocks.wall)
    ran, spent = clocks.processor() - ran, clocks.wall() - began
    waited = max(0.0, 1 - ran / spent) if spent > 0 else 0.0
    return _Block(median_ms=1000 * float(np.median(times)), calls=len(times), waited=waited)


def _times(call: Call, seconds: float, min_calls: int, patience_s: float, clock: Clock) -> list[float]:
    times: list[float] = []
    spent = 0.0
    while not times or spent < seconds or (len(times) < min_calls and spent < patience_s):
        start = clock()
        call()
        times.append(clock() - start)
        spent += times[-1]
    return times


def _medians(rounds: Sequence[Sequence[_Block]], place: int) -> NDArray[np.float64]:
    return np.array([blocks[place].median_ms for blocks in rounds])


def _centre(rounds: Sequence[Sequence[_Block]], place: int) -> Centre:
    return centre_of(np.log(_medians(rounds, place) / _medians(rounds, 0)))


def _latency(rounds: Sequence[Sequence[_Block]], place: int, crowded: Sequence[bool], rules: Protocol) -> Latency:
    pairs = zip(rounds, crowded, strict=True)
    disturbed = sum(others or blocks[at].disturbed for blocks, others in pairs for at in (0, place))
    unseen = _BETWEEN_SITTINGS + _AMONG_OTHERS * disturbed / (2 * len(rounds))
    seen, own = _centre(rounds, place), centre_of(np.log(_medians(rounds, 0)))
    ratio, scale = math.exp(seen.value), math.exp(own.value)
    ends = _ends(seen.beside(unseen if place else 0.0))
    return Latency(
        median_ms=ratio * scale,
        interval_ms=Interval(low=ends.low * scale, high=ends.high * scale) if place else _ends(own.beside(unseen)),
        ratio=ratio,
        ratio_interval=ends,
        raw_median_ms=float(np.median(_medians(rounds, place))),
        blocks=len(rounds),
        calls=sum(blocks[place].calls for blocks in rounds),
        settled=seen.half_width <= rules.half_width,
        disturbed_blocks=disturbed,
        drifted=drifts(_medians(rounds, 0)),
    )


def _ends(logs: Centre) -> Interval:
    return Interval(low=math.exp(logs.low), high=math.exp(logs.high))
