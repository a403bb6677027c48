"""Warm workers: processes that begin with what they need imported, and are like all others in everything else."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path

import pytest
import torch
from search_toy import Trials, budget, new_ledger, outcome_of, problem
from threadpoolctl import threadpool_info
from worker_toys import Toys

from beats_search.records.event import Event, Reclaimed
from beats_search.records.outcome import TrialOutcome
from beats_search.search.attempt import KeepGoing
from beats_search.search.backends.local import Try, Workers
from beats_search.search.backends.warm import warmed
from beats_search.search.crew import Job
from beats_search.search.reading import read_run
from beats_search.search.study import by, search
from beats_search.training.devices import use_threads

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes begin with nothing")


@pytest.fixture
def no_server() -> Iterator[None]:
    """Begin and end without a process that imports for others."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    yield
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Looking:
    """Opens what notes the environment of its process, and where it has a module from that nobody here imports."""

    folder: Path

    def __call__(self) -> Try:
        """Return what notes it and answers by the plan."""

        def look(job: Job, _: KeepGoing) -> TrialOutcome:
            place = getattr(sys.modules.get("begun_with"), "PLACE", None)
            seen = [os.environ.get("TOY"), os.environ.get("NEW"), tempfile.gettempdir(), place]
            (self.folder / f"{job.number}").write_text(repr(seen), encoding="utf-8")
            return outcome_of(job.plan)

        return look


def test_what_is_imported_before_starts_no_thread() -> None:
    """A process may fork as long as it has one thread; the import of onnxruntime starts another."""
    looks = "import beats_search.trial.imported, os, sys; print(len(os.listdir('/proc/self/task')), *sys.modules)"
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    told = subprocess.run(
        [sys.executable, "-c", looks], env={**os.environ, **one}, check=True, capture_output=True, text=True
    )
    threads, *modules = told.stdout.split()
    assert threads == "1"
    assert "onnxruntime" not in modules
    assert {"torch.export._trace", "beats_search.trial.run", "beats_search.compression.quantization"} <= {*modules}


@pytest.mark.usefixtures("no_server")
def test_a_warm_worker_has_the_environment_of_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What changes between the import and its beginning counts, the folder for temporary files included.

    The import is from where this process would import, and not from the folder that the user is in.
    """
    for place in ("path", "user"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "begun_with.py").write_text(f"PLACE = {place!r}", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "path")
    monkeypatch.chdir(tmp_path / "user")
    with warmed("begun_with") as context, new_ledger(tmp_path / "study.db") as ledger:
        aside = tmp_path / "aside"
        aside.mkdir()
        monkeypatch.setenv("TMPDIR", str(aside))
        monkeypatch.setenv("NEW", "here")
        crew = Workers(Looking(tmp_path), [{"TOY": "0"}], context=context())
        search(problem(Trials()), ledger, budget(2), drive=by(crew))
    assert (tmp_path / "1").read_text(encoding="utf-8") == repr(["0", "here", str(aside), "path"])


@pytest.mark.usefixtures("no_server")
def test_a_warm_worker_that_dies_costs_one_attempt(tmp_path: Path) -> None:
    """Its place is taken, its trial comes again, and in the end no worker is left."""
    events = list[Event]()
    toys = Toys(folder=tmp_path, instead={2: "die once"})
    with warmed("worker_toys") as context, new_ledger(tmp_path / "study.db") as ledger:
        search(
            problem(Trials()), ledger, budget(6), events.append, drive=by(Workers(toys, [{}, {}], context=context()))
        )
    assert [event.number for event in events if isinstance(event, Reclaimed)] == [2]
    assert [trial.number for trial in read_run(tmp_path / "study.db").trials] == list(range(6))
    workers = {int(line.split()[0]) for number in range(6) for line in _lines(tmp_path / f"{number}")}
    assert len(workers) == 3
    _await(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


@pytest.mark.usefixtures("no_server")
@pytest.mark.parametrize("asked", [False, True])
def test_an_import_that_nobody_needs_is_broken_off(*, asked: bool) -> None:
    """Where a run ends before anybody works, nothing goes on behind the user's back."""
    with warmed("worker_toys") as context:
        server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
        if asked:
            context()
    if not asked:
        _await(lambda: os.waitid(os.P_PID, server, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None)
    ended = os.waitid(os.P_PID, server, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    assert ended is not asked


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("named", "count"), [("2", 2), ("", 1), ("0", 1), ("1,4", 1), ("2, 1", 2), ("all", 1)])
def test_threads_are_as_many_as_the_environment_names(named: str, count: int) -> None:
    """After the import as well; a name that is no number changes nothing."""
    use_threads(named)
    assert torch.get_num_threads() == count
    if count == 2:
        assert {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"} == {2}


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="ascii").splitlines()


def _await(found: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not found():
        assert time.monotonic() < end
        time.sleep(0.02)
