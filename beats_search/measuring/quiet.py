"""Quiet: nothing in, the right to time while nothing else of this user computes, or to compute something, out.

Who computes holds a lock together with others, for a batch or a stage at a time; whoever measures
holds it alone. Before it all pass a turnstile, which a waiting measurer keeps, so that nothing begins
before it has measured. The operating system holds both locks, so that they end with their process,
however that ends; they are as good as the file system's locks are. A batch costs about 25 µs more.

A thread never waits for one hold while it has another: within its own it goes on, and before it
measures, or does what may wait for others, it lets go of its right to compute. So no two wait in a circle.
"""

import os
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

if sys.platform == "win32":

    def _hold(_: int, *, shared: bool) -> None:
        """Hold nothing: Windows has no locks that can be shared, so there timings are as quiet as the machine."""
        del shared

    def _let_go(_: int) -> None:
        """Hold nothing on."""

    def _user() -> int:
        """Return one number for all: the temporary folder is the user's own."""
        return 0
else:
    import fcntl

    def _hold(descriptor: int, *, shared: bool) -> None:
        """Wait for the lock of an open file, which ends when the file is closed."""
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)

    def _let_go(descriptor: int) -> None:
        """End the lock of a file that stays open."""
        fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _user() -> int:
        """Return the number of whoever runs this process."""
        return os.getuid()


_TURNSTILE: Final = ".turnstile"
_QUIET: Final = ".quiet"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuietWindow:
    """When the processes that share a folder compute, and when they keep still. The folder exists.

    Without a folder, for a process that computes alone, nobody waits. Every thread opens the files anew,
    so that threads exclude one another like processes.
    """

    folder: Path | None = None

    @contextmanager
    def pace(self) -> Iterator[None]:
        """Hold the right to compute, beside others who do; wait while somebody measures.

        A thread that holds the window in either way already goes on at once.
        """
        if self.folder is None or self.folder in _HELD.by:
            yield
            return
        with _opened(self.folder / _QUIET) as descriptor:
            _join(self.folder, descriptor)
            with _noted(self.folder, _Hold(descriptor=descriptor, alone=False)):
                yield

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Hold the right to measure alone; wait for what has begun to compute, and let nothing else begin.

        A thread that computes lets go of that right and takes it up again after it has measured.
        """
        held = None if self.folder is None else _HELD.by.get(self.folder)
        if self.folder is None or (held is not None and held.alone):
            yield
            return
        turnstile, quiet = (self.folder / name for name in (_TURNSTILE, _QUIET))
        with self.pausing(), _opened(turnstile) as first, _opened(quiet) as second:
            _hold(first, shared=False)
            _hold(second, shared=False)
            with _noted(self.folder, _Hold(descriptor=second, alone=True)):
                yield

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """Let go of the right to compute, for what may wait for others who compute; take it up again after it."""
        held = None if self.folder is None else _HELD.by.get(self.folder)
        if self.folder is None or held is None or held.alone:
            yield
            return
        _let_go(held.descriptor)
        del _HELD.by[self.folder]
        try:
            yield
        finally:
            _join(self.folder, held.descriptor)
            _HELD.by[self.folder] = held


ALONE: Final = QuietWindow()
"""The window of a process that computes alone."""


def window_of_machine() -> QuietWindow:
    """Return the window that all processes of this user on this machine share: its locks are in the temporary folder.

    Where that folder cannot be had, or is somebody else's, nobody waits.
    """
    folder = _temporary() / f"beats-search-quiet-{_user()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        return QuietWindow(folder=folder) if _is_own(folder) else ALONE
    except OSError:
        return ALONE


def _temporary() -> Path:
    return Path(tempfile.gettempdir())


def _is_own(folder: Path) -> bool:
    """Tell whether a folder, not what a link leads to, is this user's, and nobody else may write there."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        return False
    return sys.platform == "win32" or (found.st_uid == _user() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hold:
    descriptor: int
    alone: bool


@final
class _Held(threading.local):
    """What the current thread holds, by the folder of its window."""

    def __init__(self) -> None:
        self.by: dict[Path, _Hold] = {}


_HELD: Final = _Held()


def _join(folder: Path, descriptor: int) -> None:
    """Pass the turnstile and hold the lock of the open file `.quiet` together with others."""
    with _opened(folder / _TURNSTILE) as turnstile:
        _hold(turnstile, shared=False)
    _hold(descriptor, shared=True)


@contextmanager
def _noted(folder: Path, hold: _Hold) -> Iterator[None]:
    _HELD.by[folder] = hold
    try:
        yield
    finally:
        _HELD.by.pop(folder, None)  # an interrupt may have come while it was let go of


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a file for its lock, which ends here; a process that was forked in between has it open, too."""
    descriptor, own = os.open(path, os.O_RDWR | os.O_CREAT, 0o600), os.getpid()
    try:
        yield descriptor
    finally:
        if os.getpid() == own:
            _let_go(descriptor)
        os.close(descriptor)
