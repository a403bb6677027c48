"""Timing: stages entered by name in, the seconds that each took out, and the stage in which a trial failed."""

import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from beats_search.records.errors import DISK_FULL, SearchEndedError
from beats_search.records.outcome import Failed


class Timing:
    """What a trial is at: which stage is under way, and the seconds that each took."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Start before the first stage."""
        self.seconds: dict[str, float] = {}
        self.current = "start"
        self._clock = clock

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Enter a stage; time spent in a stage that is entered again adds up."""
        self.current, began = name, self._clock()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + self._clock() - began

    def failed(self, error: BaseException) -> Failed:
        """Turn the error that ended the current stage into an outcome.

        Raises SearchEndedError when the disk is full, which is not the trial's fault.
        """
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            where = f" ({error.filename})" if error.filename else ""
            raise SearchEndedError(
                f"no space left on the disk{where}; all finished trials are kept: "
                "free some space and run the same command to go on"
            ) from error
        return Failed(stage=self.current, reason=_reason(error), detail="".join(traceback.format_exception(error)))


def _reason(error: BaseException) -> str:
    """Return the first line of an error, and the one after it where the first only announces it."""
    first, *others = [line.strip() for line in f"{type(error).__name__}: {error}".splitlines() if line.strip()]
    return f"{first} {others[0]}" if others and first.endswith(":") else first
