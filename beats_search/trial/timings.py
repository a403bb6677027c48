"""Timings: latencies of files in, by what they depend on; those of files that differ in their weights alone out.

Processes of one run share them, so that a structure is timed once, whoever does it.
"""

import json
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Protocol, final

from beats_search.records.outcome import Latency
from beats_search.records.plain import from_plain, to_plain
from beats_search.tensors import shelf
from beats_search.tensors.structure import Known, name_of

_MOST: Final = 1024
"""They are kept by structure, and structures are large."""

_NARROW: Final = 1.2
"""A latency whose interval's ends are closer than this factor holds for other files of its structure."""


class Beside(Hashable, Protocol):
    """What a file is timed beside."""

    @property
    def median_ms(self) -> float | None:
        """Return the median on whose scale latencies are told, None where they make their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """The latency of a file, which is that of all that differ in their weights alone, and the seconds it took."""

    file: str
    latency: Latency
    seconds: float


@final
class Timings:
    """What has been timed in a run, by this process and by those that it shares a shelf with."""

    def __init__(self) -> None:
        """Begin with what is on the shelf."""
        self._known = Known[Timed](_MOST)

    def found(self, like: Hashable | None, reference: Beside, measure: Callable[[], Timed]) -> Timed:
        """Return a narrow timing of a file of that likeness beside the reference, or else measure it."""
        key = None if like is None else (like, reference)
        return self._known.found(key, lambda: _shared(like, reference, measure), keep=_is_narrow)

    def note(self, like: Hashable | None, reference: Beside, timed: Timed) -> None:
        """Note what was measured otherwise, if it is narrow."""
        self.found(like, reference, lambda: timed)


def _shared(like: Hashable | None, reference: Beside, measure: Callable[[], Timed]) -> Timed:
    name = None if like is None else name_of((like, repr(reference.median_ms)))
    told = shelf.taken(name)
    if told is not None:
        return from_plain(Timed, json.loads(told))
    timed = measure()
    if _is_narrow(timed):
        shelf.put(name, json.dumps(to_plain(timed)))
    return timed


def _is_narrow(timed: Timed) -> bool:
    interval = timed.latency.ratio_interval
    return interval.high <= _NARROW * interval.low
