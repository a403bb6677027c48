"""Steady timing: bad stretches of the machine are seen by the reference's own time, and timed again."""

from collections.abc import Sequence

import pytest

from beats_search.measuring import steady
from beats_search.measuring.steady import measure_steadily
from beats_search.records.outcome import Interval, Latency


def sitting(ratio: float, reference_ms: float, *, drifted: bool = False, disturbed: int = 0) -> Latency:
    """Return what a sitting found in which the reference took so long."""
    ends = Interval(low=0.9 * ratio, high=1.1 * ratio)
    return Latency(
        median_ms=ratio,
        interval_ms=ends,
        ratio=ratio,
        ratio_interval=ends,
        raw_median_ms=ratio * reference_ms,
        blocks=9,
        calls=99,
        settled=True,
        drifted=drifted,
        disturbed_blocks=disturbed,
    )


GOOD, LATER = sitting(0.5, 2.0), sitting(0.55, 2.1)
BUSY = sitting(0.5, 2.1, disturbed=18)
SLOW, SLOWER, DRIFTED = sitting(0.7, 2.6), sitting(0.8, 3.0), sitting(0.6, 2.0, drifted=True)


@pytest.mark.parametrize(
    ("sittings", "reference_ms", "counts", "taken"),
    [
        ((GOOD, LATER), 2.0, GOOD, 1),
        ((SLOW, LATER, GOOD), 2.0, LATER, 2),
        ((DRIFTED, SLOW, GOOD), 2.0, GOOD, 3),
        ((SLOWER, SLOW, DRIFTED), 2.0, DRIFTED, 3),
        ((SLOWER, SLOW, SLOWER), 2.0, SLOW, 3),
        ((SLOW, GOOD), None, SLOW, 1),
        ((DRIFTED, SLOW), None, SLOW, 2),
        ((BUSY, GOOD), 2.0, BUSY, 1),
        ((BUSY, GOOD), None, GOOD, 2),
    ],
)
def test_the_first_sitting_in_a_good_stretch_counts(
    monkeypatch: pytest.MonkeyPatch,
    sittings: Sequence[Latency],
    reference_ms: float | None,
    counts: Latency,
    taken: int,
) -> None:
    """Three are taken at most, each with its own seed; of bad ones only, that with the fastest reference counts."""
    seeds: list[int] = []

    def timed(*_: object, seed: int, **__: object) -> Latency:
        seeds.append(seed)
        return sittings[len(seeds) - 1]

    monkeypatch.setattr(steady, "measure_latency", timed)
    found = measure_steadily(lambda: int, lambda: int, reference_median_ms=reference_ms, seed=7)
    assert found is counts
    assert seeds == [7, 8, 9][:taken]
