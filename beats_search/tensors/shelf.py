"""Shelf: texts by name in, for the other processes of a run on this machine out: what one finds out, no other has to.

A process keeps nothing until it is told the folder.
"""

import contextlib
import os
from pathlib import Path
from typing import Final

_FOLDER: Final[list[Path]] = []


def share_in(folder: Path | None) -> None:
    """Keep texts in a folder from here on, and look for them there; None ends that."""
    _FOLDER[:] = [] if folder is None else [folder]


def put(name: str | None, text: str) -> None:
    """Keep a text, at once or not at all; where it cannot be written, or has no name, others do without."""
    if not _FOLDER or name is None:
        return
    aside = _FOLDER[0] / f".{name}.{os.getpid()}"
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(_FOLDER[0] / name)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def taken(name: str | None) -> str | None:
    """Return the text of a name, None where there is none."""
    if not _FOLDER or name is None:
        return None
    try:
        return (_FOLDER[0] / name).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
