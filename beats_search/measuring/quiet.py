"""Quiet: a run's folder in, the right to time while nothing else of the run computes, or to compute a batch, out.

Workers hold a lock together, one batch at a time; whoever measures holds it alone. Before it all pass
a turnstile, which a waiting measurer keeps, so that no batch begins before it has measured. The
operating system holds both locks, so that they end with their process, however that ends; they are
as good as the file system's locks are. A batch costs about 25 µs more.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

if sys.platform == "win32":

    def _hold(_: int, *, shared: bool) -> None:
        """Hold nothing: Windows has no locks that can be shared, so there timings are as quiet as the machine."""
        del shared
else:
    import fcntl

    def _hold(descriptor: int, *, shared: bool) -> None:
        """Wait for the lock of an open file, which ends when the file is closed."""
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)


_TURNSTILE: Final = ".turnstile"
_QUIET: Final = ".quiet"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuietWindow:
    """When the processes of one run compute, and when they keep still. `folder` is the run's, and exists.

    Without a folder, for a process that computes alone, nobody waits. Every use opens the files anew,
    so that threads exclude one another like processes.
    """

    folder: Path | None = None

    @contextmanager
    def pace(self) -> Iterator[None]:
        """Hold the right to compute one batch, beside others who do; wait while somebody measures."""
        with self._held(_TURNSTILE, shared=False):
            pass
        with self._held(_QUIET, shared=True):
            yield

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Hold the right to measure alone; wait for the batches that have begun, and let no other begin."""
        with self._held(_TURNSTILE, shared=False), self._held(_QUIET, shared=False):
            yield

    def _held(self, name: str, *, shared: bool) -> AbstractContextManager[None]:
        return nullcontext() if self.folder is None else _held(self.folder / name, shared=shared)


ALONE: Final = QuietWindow()
"""The window of a process that computes alone."""


@contextmanager
def _held(path: Path, *, shared: bool) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _hold(descriptor, shared=shared)
        yield
    finally:
        os.close(descriptor)
