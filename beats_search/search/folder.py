"""Folder: a path in, a folder that may hold a run out. What a run did not write is never deleted."""

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from beats_search.records.errors import CommandError
from beats_search.search.lock import Lock
from beats_search.search.reading import RunFacts, is_study

PREVIOUS: Final = "study.previous.db"
"""Where the study is that the last edit of the space replaced."""

_RESULTS: Final = frozenset({
    "space.yaml", "study.db", "front.json", "trials.csv", "report.html", "environment.json", PREVIOUS,
})  # fmt: skip
_LOCK: Final = "study.lock"
_TRACES: Final = frozenset({
    _LOCK, ".turnstile", ".quiet", "study.new", "study.new-journal", "study.db-journal", "study.db-wal", "study.db-shm",
})  # fmt: skip
_ASIDE: Final = re.compile(r"\.(space\.yaml|environment\.json|front\.json|trials\.csv|report\.html|card\.json)\.\d+")
_MODELS: Final = ("model.onnx", "model.pt2")
_MODEL_FILES: Final = frozenset({*_MODELS, "card.json"})
_TIMED_ON: Final = ("processor", "instructions", "onnxruntime")
_LIBRARIES: Final[Mapping[str, str]] = {"openvino": "openvino", "torch_eager": "torch", "torch_compile": "torch"}
"""What runtimes run on, those besides the default one, by their names."""


def study_file(folder: Path) -> Path:
    """Return where the study of a run folder is."""
    return folder / "study.db"


def model_file(folder: Path, number: int) -> Path:
    """Return where the model of a finished trial is: what is there of model.onnx and model.pt2, else the first."""
    beside = folder / "models" / str(number)
    return next((beside / name for name in _MODELS if (beside / name).exists()), beside / _MODELS[0])


def check_folder(folder: Path, *, fresh: bool) -> None:
    """Refuse a folder that is neither new, empty, nor a run of ours; with `fresh`, one with anything else in it.

    What only a start that was cut off can have left does not count.
    """
    if folder.exists() and not folder.is_dir():
        raise CommandError(f"{folder} is a file; --out names a folder")
    if not folder.exists():
        return
    foreign = sorted(str(path.relative_to(folder)) for path in _foreign(folder))
    started = study_file(folder).is_file()
    if not started and any(path.name not in _TRACES for path in folder.iterdir()):
        some = ", ".join(sorted(path.name for path in folder.iterdir())[:3])
        raise CommandError(f"{folder} holds files that are no run of beats-search ({some}); name another with --out")
    if fresh and started and not _is_ours(folder):
        raise CommandError(f"{study_file(folder)} is no study of beats-search, so --fresh does not delete it")
    if fresh and foreign:
        listed = ", ".join(foreign[:5])
        raise CommandError(f"{folder}: --fresh deletes only what a run wrote, and this it did not: {listed}")


def check_same_run(then: RunFacts, now: RunFacts, folder: Path) -> None:
    """Refuse to mix runs of other names, other data, or latencies that cannot be compared, in one run."""
    advice = "--fresh starts anew, --out names another folder"
    if then.name != now.name:
        what = f"holds the run of another space ({then.name}) than {now.space_file} is ({now.name})"
        raise CommandError(f"{folder} {what}; {advice}")
    if then.data_digest not in {"", now.data_digest}:
        raise CommandError(f"{folder} holds a run on other data than {now.space_file} names now; {advice}")
    for fact in (*_TIMED_ON, *(library for name, library in _LIBRARIES.items() if f'"{name}"' in now.space_canonical)):
        if then.environment.get(fact) != now.environment[fact]:
            changed = f"{then.environment.get(fact)!r}, and here it is {now.environment[fact]!r}"
            raise CommandError(f"{folder} was timed with {fact} {changed}: latencies would not compare; {advice}")


def clear_folder(folder: Path) -> None:
    """Delete the run in a folder that `check_folder` has let pass; CommandError while a search runs there."""
    if not folder.exists():
        return
    lock = Lock(folder / _LOCK)
    for path in list(folder.iterdir()):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _LOCK:
            path.unlink()
    lock.release()


def tidy_folder(folder: Path) -> None:
    """Delete what a process that was killed had written aside; call it with the lock held."""
    for left in (folder / "models").glob(".trial-*"):
        shutil.rmtree(left)
    for path in (*folder.glob(".*"), *folder.glob("models/*/.*")):
        if _ASIDE.fullmatch(path.name):
            path.unlink()


def _is_ours(folder: Path) -> bool:
    """Tell whether a study is ours; one that cannot be read is where its companions are."""
    return is_study(study_file(folder)) or all((folder / name).is_file() for name in ("space.yaml", "environment.json"))


def _foreign(folder: Path) -> Iterator[Path]:
    """Yield what no run writes."""
    for path in folder.iterdir():
        if path.name == "models" and path.is_dir() and not path.is_symlink():
            yield from _foreign_models(path)
        elif path.is_symlink() or path.is_dir() or not _is_result(path.name):
            yield path


def _foreign_models(models: Path) -> Iterator[Path]:
    for trial in models.iterdir():
        if trial.is_symlink() or not trial.is_dir():
            yield trial
        elif trial.name.isdecimal():
            yield from (path for path in trial.iterdir() if not _is_model_file(path))
        elif not trial.name.startswith(".trial-"):
            yield trial


def _is_result(name: str) -> bool:
    return name in _RESULTS | _TRACES or _ASIDE.fullmatch(name) is not None


def _is_model_file(path: Path) -> bool:
    return path.is_file() and (path.name in _MODEL_FILES or _ASIDE.fullmatch(path.name) is not None)
