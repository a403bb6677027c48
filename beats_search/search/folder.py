"""Folder: a path in, a folder that may hold a run out. What a run did not write is never deleted."""

import shutil
from pathlib import Path
from typing import Final

from beats_search.records.errors import CommandError
from beats_search.search.lock import Lock

_WRITTEN: Final = ("space.yaml", "study.db", "front.json", "trials.csv", "report.html", "environment.json", "models")
_TRACES: Final = ("study.lock", "study.new", "study.db-journal", "study.db-wal", "study.db-shm")
_MODEL_FILES: Final = frozenset({"model.onnx", "card.json"})


def study_file(folder: Path) -> Path:
    """Return where the study of a run folder is."""
    return folder / "study.db"


def model_file(folder: Path, number: int) -> Path:
    """Return where the model of a finished trial is."""
    return folder / "models" / str(number) / "model.onnx"


def prepare_folder(folder: Path, *, fresh: bool) -> None:
    """Make sure that the folder is new, empty, or a run of ours; with `fresh`, empty it of ours."""
    if folder.exists() and not folder.is_dir():
        raise CommandError(f"{folder} is a file; --out names a folder")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not study_file(folder).is_file():
        some = ", ".join(sorted(entry.name for entry in folder.iterdir())[:3])
        raise CommandError(f"{folder} holds files that are no run of beats-search ({some}); name another with --out")
    if fresh:
        _clear(folder)


def _clear(folder: Path) -> None:
    """Delete the run in a folder; CommandError, and nothing is deleted, when there is anything else in it."""
    foreign = sorted(entry.name for entry in folder.iterdir() if entry.name not in {*_WRITTEN, *_TRACES})
    models = [entry for trial in (folder / "models").glob("*") for entry in _entries(trial)]
    foreign += [str(entry.relative_to(folder)) for entry in models if entry.name not in _MODEL_FILES]
    if foreign:
        listed = ", ".join(foreign[:5])
        raise CommandError(f"{folder}: --fresh deletes only what a run wrote, and this it did not: {listed}")
    lock = Lock(folder / "study.lock")
    for entry in list(folder.iterdir()):
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != "study.lock":
            entry.unlink()
    lock.release()


def _entries(path: Path) -> list[Path]:
    return list(path.iterdir()) if path.is_dir() and not path.name.startswith(".trial-") else []
