"""Lock: a path in, the right to be the only process that writes there out, until it is let go.

The operating system holds the lock, so that it ends with its process, however that ends. It is
advisory, and on a network file system as good as that file system's locks are.
"""

import os
import sys
from pathlib import Path
from typing import final

from beats_search.records.errors import CommandError

if sys.platform == "win32":
    import msvcrt

    def _take(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _take(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@final
class Lock:
    """An exclusive lock on a file, which stays behind empty; taken on creation.

    Raises CommandError when another process, or another `Lock` of this one, holds it.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock or refuse at once."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _take(self._descriptor)
        except OSError as error:
            os.close(self._descriptor)
            hint = "wait until it has ended, or choose another folder with --out"
            raise CommandError(f"{path.parent}: another beats-search is running in this folder; {hint}") from error

    def release(self) -> None:
        """Let the lock go; it cannot be taken again."""
        os.close(self._descriptor)
