"""Local: jobs in, outcomes out, tried by processes of this machine, each of which may die without the others.

A worker begins with nothing of this process but what it is given, and ends when this process does,
however that ends. It ignores Ctrl-C, which this process answers for it.
"""

import contextlib
import multiprocessing
import os
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import connection
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Final, Self, TypeAlias, final

from beats_search.records.errors import SearchEndedError
from beats_search.records.outcome import EpochScore, TrialOutcome
from beats_search.search.attempt import KeepGoing
from beats_search.search.backends.messages import (
    BUG,
    DISK,
    Ended,
    Raised,
    Ready,
    Report,
    Scored,
    read_job,
    read_report,
    write_job,
    write_report,
)
from beats_search.search.backends.warm import COLD, begin_importing, without_interrupts, without_leaks_told
from beats_search.search.crew import Dead, Done, Job, Judge, overdue
from beats_search.search.stopping import is_rung

if TYPE_CHECKING:
    from beats_search.search.backends.warm import Beginning

Try: TypeAlias = Callable[[Job, KeepGoing], TrialOutcome]
"""Tries a plan out; raises SearchEndedError when the disk is full."""

Open: TypeAlias = Callable[[], Try]
"""Called once in each worker; it is pickled, so it is a function of a module or an object of a class of one."""

_STILLBORN: Final = 3
"""So many workers that die before they are ready, one after the other, end the search."""

_GRACE_S: Final = 1.0
_GO, _STOP = b"go", b"stop"


@final
class Workers:
    """A crew of processes, one for each of `environments`, whose variables it gets beside those of this process.

    They begin by `context`, in which modules may be imported already. A trial that takes longer than `trial_timeout`
    seconds has failed; its process is killed, and another takes its place, as for every process that dies.
    """

    def __init__(
        self,
        open_trials: Open,
        environments: Sequence[Mapping[str, str]],
        trial_timeout: float | None = None,
        context: "Beginning" = COLD,
    ) -> None:
        """Describe the crew; its processes begin with the `with` statement."""
        self._open, self._environments, self._timeout, self._context = open_trials, environments, trial_timeout, context
        self._workers: list[_Worker] = []
        self._stillborn = 0

    @property
    def size(self) -> int:
        """Return the number of workers."""
        return len(self._environments)

    def begin(self, job: Job) -> None:
        """Give a job to an idle worker."""
        next(worker for worker in self._workers if worker.job is None).take(job)

    def wait(self, judge: Judge) -> Done | Dead:
        """Return the next job that has ended; SearchEndedError when a worker's disk is full, or none can begin."""
        while True:
            busy = {handle: worker for worker in self._workers if worker.job for handle in worker.handles}
            for handle in connection.wait(list(busy), self._patience()):
                found = self._heard(busy[handle], judge)  # type: ignore[index] # these are the handles given
                if found is not None:
                    return found
            late = next((worker for worker in self._workers if worker.deadline < time.monotonic()), None)
            if late is not None:
                return self._overdue(late)

    def __enter__(self) -> Self:
        """Begin all processes at once."""
        self._workers = [self._worker(environment) for environment in self._environments]
        return self

    def __exit__(self, *_: object) -> None:
        """Let idle workers go, and kill those with a job."""
        for act in (_Worker.let_go, _Worker.end):
            for worker in self._workers:
                act(worker)
        self._workers = []

    def _patience(self) -> float | None:
        first = min(worker.deadline for worker in self._workers)
        return None if first == float("inf") else max(0.0, first - time.monotonic())

    def _heard(self, worker: "_Worker", judge: Judge) -> Done | Dead | None:
        """Answer what a worker tells, None unless its job has ended by that."""
        if worker.job is None:
            return None
        number, report = worker.job.number, worker.report()
        match report:
            case None:
                return self._buried(worker)
            case Ready():
                self._stillborn = 0
                worker.began(self._timeout)
            case Scored(score=score, own_s=own_s):
                worker.answer(go_on=judge(number, score))
                worker.began(self._timeout, own_s)
            case Ended(outcome=outcome):
                worker.rest()
                return Done(number=number, outcome=outcome)
            case Raised(kind=kind, text=text):
                raise SearchEndedError(text) if kind == DISK else RuntimeError(f"in a worker:\n{text}")
        return None

    def _buried(self, worker: "_Worker") -> Dead | None:
        """Replace a worker that died; its job is lost with it, or begins anew when the worker was not ready yet."""
        job, was_ready, how = worker.job, worker.ready, worker.end()
        self._replace(worker)
        if job is None or was_ready:
            return None if job is None else Dead(number=job.number, how=how)
        self._stillborn += 1
        if self._stillborn >= _STILLBORN:
            text = f"{_STILLBORN} workers died before they could begin, the last one {how}"
            raise SearchEndedError(f"{text}; fewer workers need less memory (--workers 1); the same command goes on")
        self.begin(job)
        return None

    def _overdue(self, worker: "_Worker") -> Done:
        job = worker.job
        worker.end()
        self._replace(worker)
        return overdue(job.number if job else -1, self._timeout or 0.0)

    def _replace(self, worker: "_Worker") -> None:
        self._workers[self._workers.index(worker)] = self._worker(worker.environment)

    def _worker(self, environment: Mapping[str, str]) -> "_Worker":
        return _Worker(self._open, environment, self._context, alone=self.size == 1)


@final
class _Worker:
    """A process and what it is at."""

    def __init__(self, open_trials: Open, environment: Mapping[str, str], context: "Beginning", *, alone: bool) -> None:
        self.environment = environment
        self.job: Job | None = None
        self.ready = False
        self.deadline = float("inf")
        self._ours, theirs = context.Pipe()
        given = (theirs, open_trials, {**os.environ, **environment}, alone)
        self._process = context.Process(target=_work, args=given)
        if context is not COLD:
            begin_importing()  # anew, where it was killed
        deaf = without_interrupts() if context is COLD else contextlib.nullcontext()  # what is forked ignores them
        with deaf, without_leaks_told():
            self._process.start()
        theirs.close()

    @property
    def handles(self) -> tuple[Connection, int]:
        """What can be waited for: something told, or the end of the process."""
        return self._ours, self._process.sentinel

    def take(self, job: Job) -> None:
        """Take a job on; a worker that died while it was idle is found out later."""
        self.job = job
        with contextlib.suppress(OSError):
            self._ours.send_bytes(write_job(job))

    def began(self, timeout: float | None, ago_s: float = 0.0) -> None:
        """Note that the job is under way, and has taken so many seconds by now; those it waited do not count."""
        self.ready = True
        self.deadline = float("inf") if timeout is None else time.monotonic() + timeout - ago_s

    def report(self) -> Report | None:
        """Return what the process tells, None when it has died."""
        try:
            return read_report(self._ours.recv_bytes()) if self._ours.poll() or self._process.is_alive() else None
        except (EOFError, OSError):
            return None

    def answer(self, *, go_on: bool) -> None:
        """Say whether a trial goes on; a process that has died since is found out later."""
        with contextlib.suppress(OSError):
            self._ours.send_bytes(_GO if go_on else _STOP)

    def rest(self) -> None:
        """Be idle."""
        self.job, self.ready, self.deadline = None, False, float("inf")

    def let_go(self) -> None:
        """Let an idle process end by itself, and kill one with a job."""
        self._ours.close()
        if self.job is not None:
            self._process.kill()

    def end(self) -> str:
        """End the process and tell in words how it ended."""
        self.let_go()
        self._process.join(_GRACE_S)
        self._process.kill()
        self._process.join()
        code = self._process.exitcode or 0
        self.rest()
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _work(ours: Connection, open_trials: Open, environment: Mapping[str, str], alone: bool) -> None:  # noqa: FBT001
    """Try plans until nobody asks for more. What the process is told, it is told as bytes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # which an import may have looked up in another environment
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        try_plan = open_trials()
        while True:
            job = read_job(ours.recv_bytes())
            ours.send_bytes(write_report(Ready()))
            hearing = _Hearing(ours, job.plan.training.epochs, patient=alone)
            outcome = try_plan(job, hearing.keep_going)
            hearing.end()
            ours.send_bytes(write_report(Ended(outcome)))
    except (EOFError, BrokenPipeError):
        return
    except SearchEndedError as error:
        ours.send_bytes(write_report(Raised(DISK, str(error))))
    except Exception:  # noqa: BLE001 - whatever it is, it ends the search, and is told there
        ours.send_bytes(write_report(Raised(BUG, traceback.format_exc())))


@final
class _Hearing:
    """A trial that asks after each rung whether it goes on.

    The search may be busy with a proposal for another worker: then a trial of so many epochs goes on until it is
    answered, after its last epoch apart, behind which other work begins. Where it is `patient`, because nobody else
    keeps the search busy, it waits, so that a trial ends after the same epoch each time.
    """

    def __init__(self, ours: Connection, epochs: int, *, patient: bool) -> None:
        self._ours, self._epochs, self._patient = ours, epochs, patient
        self._began = time.monotonic()
        self._owed = 0
        self._told_to_stop = False

    def keep_going(self, score: EpochScore) -> bool:
        """Tell how a trial does after an epoch, and whether it goes on, as far as that is known."""
        if is_rung(score.epoch, self._epochs):
            self._ours.send_bytes(write_report(Scored(score, time.monotonic() - self._began)))
            self._owed += 1
        self._listen(wait=self._patient or score.epoch >= self._epochs)
        return not self._told_to_stop

    def end(self) -> None:
        """Take in what is still to be answered."""
        self._listen(wait=True)

    def _listen(self, *, wait: bool) -> None:
        asked = time.monotonic()
        while self._owed and (wait or self._ours.poll()):
            self._told_to_stop |= self._ours.recv_bytes() == _STOP
            self._owed -= 1
        self._began += time.monotonic() - asked


def _end_with_parent() -> None:
    """End this process when the one that spawned it has ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
