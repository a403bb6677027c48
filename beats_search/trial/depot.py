"""Depot: the address of a place that machines share and a key in, an entry of a stage store, as bytes, out.

Whatever fsspec reads and writes: `s3://bucket/stages`, `gs://…`, `file:///mnt/shared`. A machine's own store
stands before it. Nothing is locked there, so two machines may compute the same at the same time; entries are
whole or none, by the digest at their head. How much is kept, and for how long, is for the place to say.
"""

import contextlib
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, final

import fsspec

_ENTRY: Final = ".pt"
_LISTED_S: Final = 10.0


def is_address(text: str) -> bool:
    """Tell whether a text is an address rather than a path."""
    return "://" in text


@final
@dataclass(slots=True)
class Depot:
    """Entries under an address. What goes wrong there never reaches the caller: it is as if there were none.

    What is there is listed at most every ten seconds, because it is asked for often and is far away.
    """

    address: str
    clock: Callable[[], float] = time.monotonic
    _listed_at: float = field(default=float("-inf"), init=False)
    _listed: frozenset[str] = field(default=frozenset(), init=False)

    def check(self) -> None:
        """Make the folder; raises what fsspec does where there can be none, ImportError without its library."""
        files, folder = self._open()
        files.makedirs(folder, exist_ok=True)

    def has(self, key: str) -> bool:
        """Tell whether an entry was there when it was last looked."""
        if self.clock() - self._listed_at > _LISTED_S:
            self._listed_at = self.clock()
            with contextlib.suppress(Exception):
                files, folder = self._open()
                names = files.ls(folder, detail=False)
                self._listed = frozenset(str(name).rpartition("/")[2].removesuffix(_ENTRY) for name in names)
        return key in self._listed

    def get(self, key: str) -> bytes | None:
        """Return an entry, None where there is none to be had."""
        if not self.has(key):
            return None
        with contextlib.suppress(Exception):
            files, folder = self._open()
            content: bytes = files.cat_file(f"{folder}/{key}{_ENTRY}")
            return content
        return None

    def put(self, key: str, content: bytes) -> None:
        """Keep an entry, whole from the moment at which it has its name."""
        with contextlib.suppress(Exception):
            files, folder = self._open()
            aside = f"{folder}/.{key}.{uuid.uuid4().hex}"
            files.pipe_file(aside, content)
            files.mv(aside, f"{folder}/{key}{_ENTRY}")

    def _open(self) -> tuple[Any, str]:
        files, folder = fsspec.core.url_to_fs(self.address, use_listings_cache=False)
        return files, str(folder).rstrip("/")
