"""Store: a key and what was computed for it in, the same again later, here or in another process, out.

An entry is a file, written aside and then renamed, so that it is there whole or not at all. Of the
file system nothing is asked but that rename replaces, and that flock locks: on one that is shared
by machines the store is as good as these two are there. Where locks are not to be had, as on
Windows, work may be done twice, and entries stay whole all the same. The time at which a file was
last read decides on nothing but which entries go first.
"""

import hashlib
import io
import os
import pickle
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import torch

from beats_search.trial.depot import Depot

if sys.platform == "win32":

    def _take(descriptor: int, *, wait: bool) -> None:
        """Take nothing: Windows has no locks of this kind."""
        del descriptor
        if not wait:
            raise OSError
else:
    import fcntl

    def _take(descriptor: int, *, wait: bool) -> None:
        """Take the lock of an open file, which ends when the file is closed; OSError where it is not to be had."""
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)


_ENTRY: Final = ".pt"
_ASIDE: Final = ".part"
_LOCK: Final = ".lock"


@final
@dataclass(frozen=True, slots=True)
class Store:
    """Entries in a folder, of at most `limit_bytes` together: those that were not used for longest go first.

    Any number of processes may use one folder at once. What goes wrong with a file never reaches the
    caller: an entry that cannot be read is none, and one that cannot be written is not kept. With a
    `depot`, entries are brought there too, and those of other machines come from there.
    """

    folder: Path
    limit_bytes: int
    depot: Depot | None = None

    def __post_init__(self) -> None:
        """Make the folder; ValueError for a limit that allows nothing."""
        if self.limit_bytes < 1:
            raise ValueError(f"a store needs a limit of at least 1 byte, got {self.limit_bytes}")
        self.folder.mkdir(parents=True, exist_ok=True)

    def has(self, key: str) -> bool:
        """Tell whether there is an entry, without reading it."""
        here = os.path.exists(self._path(key))  # noqa: PTH110 - asked a hundred times per plan
        return here or (self.depot is not None and self.depot.has(key))

    def get(self, key: str) -> Mapping[str, Any] | None:
        """Return what was put, its tensors on the CPU; None where there is nothing, or no longer what was written."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return self._brought(key)
        with suppress(OSError):
            os.utime(path)
        found = _unpacked(content)
        if found is None:
            with suppress(OSError):
                path.unlink()
        return found

    def put(self, key: str, entry: Mapping[str, Any]) -> bool:
        """Keep tensors and plain data, in nested mappings and lists, under a key; return whether there was room."""
        content = _packed(entry)
        if self.depot is not None:
            self.depot.put(key, content)
        return self._kept(key, content)

    @contextmanager
    def locked(self, key: str) -> Iterator[None]:
        """Be the only one to compute what a key stands for; wait for whoever does, until it ends, however it ends."""
        path = self.folder / f"{key}{_LOCK}"
        descriptor = _held(path)
        try:
            yield
        finally:
            if descriptor is not None:
                with suppress(OSError):
                    path.unlink()  # while it is held: who waits for it finds that it is gone, and begins again
                os.close(descriptor)

    def _brought(self, key: str) -> Mapping[str, Any] | None:
        """Return an entry of another machine and keep it here."""
        content = self.depot.get(key) if self.depot is not None else None
        found = None if content is None else _unpacked(content)
        if content is not None and found is not None:
            self._kept(key, content)
        return found

    def _kept(self, key: str, content: bytes) -> bool:
        if len(content) > self.limit_bytes:
            return False
        try:
            self._write(self._path(key), content)
            self._make_room()
        except OSError:
            return False
        return True

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{_ENTRY}"

    def _write(self, path: Path, content: bytes) -> None:
        """Write a file aside, then rename it; OSError, and nothing left, where that fails."""
        descriptor, name = tempfile.mkstemp(prefix=f"{path.stem}-", suffix=_ASIDE, dir=path.parent)
        aside = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                with suppress(OSError):
                    _take(file.fileno(), wait=True)  # tells others that it is being written
                file.write(content)
                file.flush()
                if sys.platform != "win32":
                    aside.replace(path)
            if sys.platform == "win32":
                aside.replace(path)
        except OSError:
            with suppress(OSError):
                aside.unlink()
            raise

    def _make_room(self) -> None:
        """Remove what killed writers left, and the entries that were not used for longest, down to the limit."""
        entries: list[tuple[int, int, Path]] = []
        for path in self.folder.iterdir():
            if path.suffix == _ASIDE and _is_abandoned(path):
                path.unlink(missing_ok=True)
            if path.suffix == _ENTRY:
                with suppress(FileNotFoundError):
                    found = path.stat()
                    entries.append((found.st_mtime_ns, found.st_size, path))
        over = sum(size for _, size, _ in entries) - self.limit_bytes
        for _, size, path in sorted(entries):
            if over <= 0:
                break
            path.unlink(missing_ok=True)  # whoever reads it just now reads on
            over -= size


def _packed(entry: Mapping[str, Any]) -> bytes:
    """Return an entry as bytes, after a digest of them."""
    file = io.BytesIO()
    torch.save(dict(entry), file)
    content = file.getvalue()
    return hashlib.sha256(content).digest() + content


def _unpacked(content: bytes) -> Mapping[str, Any] | None:
    """Return an entry from its bytes; None where they are not what was packed."""
    size = hashlib.sha256().digest_size
    digest, packed = content[:size], content[size:]
    if hashlib.sha256(packed).digest() != digest:
        return None
    try:
        entry: Mapping[str, Any] = torch.load(io.BytesIO(packed), weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError):  # whole, but not plain, or not of this version
        return None
    return entry


def _held(path: Path) -> int | None:
    """Wait for the lock of a file that is there; return its descriptor, None where no lock is to be had."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError:
            return None
        try:
            _take(descriptor, wait=True)
        except OSError:
            os.close(descriptor)
            return None
        with suppress(OSError):
            if path.stat().st_ino == os.fstat(descriptor).st_ino:  # else whoever held it has taken it away
                return descriptor
        os.close(descriptor)


def _is_abandoned(path: Path) -> bool:
    """Tell whether nobody writes a file any more."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        _take(descriptor, wait=False)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
