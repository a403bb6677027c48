"""Latency: callables to open sessions and a clock in, a Latency each out. Nothing here knows what is called.

The session is the unit of noise (memory placement), so each block opens a fresh one (or takes one of
three, where opening takes longer than timing), warms it up and gives one median. A round times one
block of the reference and of every candidate, in random order. A block in which the process had to wait
for the processor is timed again. Rounds in which the core was slower than it can be (`yardstick`), or
the machine kept busy by others (`neighbours`), are left out where enough remain. From the others comes
what a candidate takes when the reference takes its usual time (`sitting`); side by side, without a
usual time, their log ratio.

Where all rounds were slow, a candidate is told as if it were slowed like the reference if it takes as
long, like the yardstick's arithmetic if it takes much less, and by something between otherwise.

A sitting cannot see how the next one will differ, nor why the reference is away from its usual time. So
the interval holds the ratio whether the candidate moves with the reference, with the yardstick or not,
and is wider by 2 %, by up to 29 % where disturbed rounds had to be used; widths add as independent ones
do. Ten small networks were timed in turns for three minutes, in 1,150 sittings of 8 rounds, of which 749
had to use slow ones: of these the root mean square error was 12 %, and 98 % of the intervals held what
quiet rounds told (without regard to the yardstick 20 %, and 83 %). In one process,
between trainings, 3 files were timed in turns beside one of 5 MB, which waits for memory: itself, and two
that do not. Of 120 sittings in 4 minutes 55 had six undisturbed rounds. The standard deviations of their
log ratios were 1.2, 2.9 and 3.6 % paired, 2.0, 2.1 and 1.5 % at the reference's usual time.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from beats_search.measuring.blocks import Clocks, OpenSession, Protocol, Sessions, time_block
from beats_search.measuring.sitting import Sitting
from beats_search.records.outcome import Latency

_LOOK_AGAIN: Final = 1.2  # times as many rounds; looking after each would end on lucky ones


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

    Its 95 % interval is that of the rounds, and 2 % for what differs between sittings; where all rounds
    were disturbed, 29 %.

    `reference_median_ms` is the stored median of the reference, at which the candidate is told; without
    one, the median measured here is used. Times are of one call.
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
    _, *found = _timed(candidates, reference, reference_median_ms, seed, protocol, clocks)
    return tuple(found)


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
    return _timed(candidates, reference, None, seed, protocol, clocks)


def _timed(
    candidates: Sequence[OpenSession],
    reference: OpenSession,
    usual_ms: float | None,
    seed: int,
    protocol: Protocol | None,
    clocks: Clocks | None,
) -> tuple[Latency, ...]:
    rules, clocks = protocol or Protocol(), clocks or Clocks()
    random = np.random.default_rng(seed)
    count = len(candidates) + 1
    budget_s, began = rules.budget_s * len(candidates), clocks.wall()
    share_s = budget_s / (rules.min_rounds * count)
    sessions = [Sessions(each, share_s, clocks.wall) for each in (reference, *candidates)]
    sitting = Sitting(rules, clocks, usual_ms)
    look = rules.min_rounds
    while (
        sitting.count < rules.least_rounds
        or clocks.wall() < began + budget_s
        or (clocks.wall() < began + rules.patience * budget_s and sitting.may_improve())
    ):
        order = random.permutation(count).tolist()
        blocks = {place: time_block(sessions[place], rules, share_s, clocks) for place in order}
        sitting.note([blocks[place] for place in range(count)])
        if sitting.count >= look and clocks.wall() >= began + budget_s / 4:
            if not sitting.may_improve() and sitting.half_width() <= rules.half_width:
                break
            look = math.ceil(_LOOK_AGAIN * sitting.count)
    return sitting.latencies()
