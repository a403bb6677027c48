"""Latency: two callables to open sessions and a clock in, a Latency out. Nothing here knows what is called.

The session is the unit of noise (memory placement), so each block opens a fresh one, warms it up and
gives one median. Blocks of the candidate and of the reference alternate in random order; the
interval is a bootstrap over rounds of two blocks (Efron & Tibshirani 1993, chapter 13).
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from beats_search.records.outcome import Interval, Latency

Call = Callable[[], object]
OpenSession = Callable[[], Call]
Clock = Callable[[], float]

_RESAMPLES: Final = 2000
_LOOK_EVERY: Final = 3  # rounds; looking after each would end on lucky ones
_TAIL: Final = (2.5, 97.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How long to time.

    Timing ends when the interval's half width is within `half_width` (a share of the ratio) or when
    `budget_s` is spent, but never before `min_rounds` rounds. A block warms up for `warmup_s` and
    times for `block_s`, with at least `min_calls` calls each.
    """

    half_width: float = 0.03
    budget_s: float = 1.5
    min_rounds: int = 9
    block_s: float = 0.02
    warmup_s: float = 0.01
    min_calls: int = 3


def measure_latency(
    candidate: OpenSession,
    reference: OpenSession,
    *,
    reference_median_ms: float | None = None,
    seed: int = 0,
    protocol: Protocol | None = None,
    clock: Clock = time.perf_counter,
) -> Latency:
    """Time a candidate against a reference and return its latency on the reference's scale.

    `reference_median_ms` is the stored median of the reference; without one, the median measured
    here is used. Times are of one call.
    """
    rules = protocol or Protocol()
    random = np.random.default_rng(seed)
    rounds: list[tuple[float, float]] = []
    calls, settled, began = 0, False, clock()
    while not settled and (len(rounds) < rules.min_rounds or clock() - began < rules.budget_s):
        blocks = _one_round(candidate, reference, rules, clock, candidate_first=bool(random.integers(2)))
        rounds.append((blocks[0].median_ms, blocks[1].median_ms))
        calls += blocks[0].calls
        if len(rounds) >= rules.min_rounds and len(rounds) % _LOOK_EVERY == 0:
            settled = _half_width(rounds, seed) <= rules.half_width
    return _latency(np.array(rounds), reference_median_ms, calls=calls, settled=settled, seed=seed)


@dataclass(frozen=True, slots=True)
class _Block:
    median_ms: float
    calls: int


def _one_round(
    candidate: OpenSession, reference: OpenSession, rules: Protocol, clock: Clock, *, candidate_first: bool
) -> tuple[_Block, _Block]:
    if candidate_first:
        first = _block(candidate, rules, clock)
        return first, _block(reference, rules, clock)
    second = _block(reference, rules, clock)
    return _block(candidate, rules, clock), second


def _block(open_session: OpenSession, rules: Protocol, clock: Clock) -> _Block:
    call = open_session()
    _times(call, rules.warmup_s, rules.min_calls, clock)
    times = _times(call, rules.block_s, rules.min_calls, clock)
    return _Block(median_ms=1000 * float(np.median(times)), calls=len(times))


def _times(call: Call, seconds: float, min_calls: int, clock: Clock) -> list[float]:
    times: list[float] = []
    spent = 0.0
    while len(times) < min_calls or spent < seconds:
        start = clock()
        call()
        times.append(clock() - start)
        spent += times[-1]
    return times


def _ratio(rounds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ratio of medians over the last rounds axis: (…, rounds, 2) to (…)."""
    medians = np.median(rounds, axis=-2)
    ratio: NDArray[np.float64] = medians[..., 0] / medians[..., 1]
    return ratio


def _interval(rounds: NDArray[np.float64], seed: int) -> Interval:
    picks = np.random.default_rng(seed).integers(len(rounds), size=(_RESAMPLES, len(rounds)))
    low, high = np.percentile(_ratio(rounds[picks]), _TAIL)
    return Interval(low=float(low), high=float(high))


def _half_width(rounds: list[tuple[float, float]], seed: int) -> float:
    interval = _interval(np.array(rounds), seed)
    return math.log(interval.high / interval.low) / 2


def _latency(
    rounds: NDArray[np.float64], reference_median_ms: float | None, *, calls: int, settled: bool, seed: int
) -> Latency:
    ratio, interval = float(_ratio(rounds)), _interval(rounds, seed)
    raw, own_reference = (float(median) for median in np.median(rounds, axis=0))
    scale = own_reference if reference_median_ms is None else reference_median_ms
    return Latency(
        median_ms=ratio * scale,
        interval_ms=Interval(low=interval.low * scale, high=interval.high * scale),
        ratio=ratio,
        ratio_interval=interval,
        raw_median_ms=raw,
        blocks=len(rounds),
        calls=calls,
        settled=settled,
    )
