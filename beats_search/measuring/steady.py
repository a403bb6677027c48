"""Steady: a file and a reference in, their latency in a stretch in which the machine was as fast as it can be out.

A machine that is shared has bad stretches of a second or two, in which all slows down, small files
more than large ones: the rounds of such a stretch agree with one another, and a ratio is off by a
third. The reference tells: its own time is known, and is longer then.
"""

from typing import Final

from beats_search.measuring.latency import OpenSession, Protocol, measure_latency
from beats_search.records.outcome import Latency

_SITTINGS: Final = 3
_SLOW: Final = 1.1


def measure_steadily(
    candidate: OpenSession,
    reference: OpenSession,
    *,
    reference_median_ms: float | None = None,
    seed: int = 0,
    protocol: Protocol | None = None,
) -> Latency:
    """Time a candidate as `measure_latency` does, up to three times, until the reference is neither slow nor drifts.

    It is slow where it takes a tenth longer than `reference_median_ms`; without that, the sitting is to
    become the scale of others, and is repeated where others kept the machine busy, too. Elsewhere that
    is no reason: it mostly lasts, and the interval says it. If all sittings were in bad stretches, the
    one with the fastest reference counts.
    """
    sittings: list[Latency] = []
    while not sittings or (len(sittings) < _SITTINGS and _is_bad(sittings[-1], reference_median_ms)):
        sittings.append(
            measure_latency(
                candidate,
                reference,
                reference_median_ms=reference_median_ms,
                seed=seed + len(sittings),
                protocol=protocol,
            )
        )
    return min(sittings, key=lambda latency: (_is_bad(latency, reference_median_ms), _reference_ms(latency)))


def _is_bad(latency: Latency, reference_median_ms: float | None) -> bool:
    if reference_median_ms is None:
        return not latency.steady
    return latency.drifted or _reference_ms(latency) > _SLOW * reference_median_ms


def _reference_ms(latency: Latency) -> float:
    """Return what the reference took in the sitting of a latency."""
    return latency.raw_median_ms / latency.ratio
