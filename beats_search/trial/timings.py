"""Timings: latencies of files in, by what they depend on; those of files that differ in their weights alone out.

Processes of one run share them in a folder, so that a structure is timed once, whoever does it.
"""

import json
import os
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from beats_search.records.outcome import Latency
from beats_search.records.plain import from_plain, to_plain
from beats_search.tensors.structure import Known, name_of

if TYPE_CHECKING:
    from beats_search.trial.run import Reference

_MOST: Final = 1024
"""They are kept by structure, and structures are large."""

_NARROW: Final = 1.2
"""A latency whose interval's ends are closer than this factor holds for other files of its structure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """The latency of a file, which is that of all that differ in their weights alone, and the seconds it took."""

    file: str
    latency: Latency
    seconds: float


@final
class Timings:
    """What this process has timed, and in `folder`, where one is given, what others have."""

    def __init__(self, folder: Path | None = None) -> None:
        """Begin with what is in the folder."""
        self._folder = folder
        self._known = Known[Timed](_MOST)

    def found(self, like: Hashable | None, reference: "Reference", measure: Callable[[], Timed]) -> Timed:
        """Return a narrow timing of a file of that likeness beside the reference, or else measure it."""
        key = None if like is None else (like, reference)
        return self._known.found(key, lambda: self._shared(like, reference, measure), keep=_is_narrow)

    def note(self, like: Hashable | None, reference: "Reference", timed: Timed) -> None:
        """Note what was measured otherwise, if it is narrow."""
        self.found(like, reference, lambda: timed)

    def _shared(self, like: Hashable | None, reference: "Reference", measure: Callable[[], Timed]) -> Timed:
        path = self._path(like, reference)
        if path is None:
            return measure()
        try:
            return from_plain(Timed, json.loads(path.read_text(encoding="ascii")))
        except (OSError, ValueError, TypeError):
            timed = measure()
        if _is_narrow(timed):
            _write(path, json.dumps(to_plain(timed)))
        return timed

    def _path(self, like: Hashable | None, reference: "Reference") -> Path | None:
        """Return where a timing is or will be; None where it has no name that other processes would know."""
        if self._folder is None or like is None:
            return None
        name = name_of((like, repr(reference.median_ms)))
        return None if name is None else self._folder / f"{name}.json"


def _write(path: Path, text: str) -> None:
    """Write a file at once or not at all; where it cannot be written, others time for themselves."""
    aside = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="ascii")
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)


def _is_narrow(timed: Timed) -> bool:
    interval = timed.latency.ratio_interval
    return interval.high <= _NARROW * interval.low
