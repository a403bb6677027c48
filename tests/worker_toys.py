"""What workers of a toy search do: plain functions of a trial's number, which a process of its own can import."""

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from search_toy import outcome_of

from beats_search.records.errors import SearchEndedError
from beats_search.records.outcome import EpochScore, Finished, Stopped, TrialOutcome
from beats_search.records.plan import TrialPlan
from beats_search.search.attempt import KeepGoing
from beats_search.search.backends.local import Try
from beats_search.search.crew import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Toys:
    """Opens what answers by the plan alone, but does something else first at some numbers.

    `folder` notes every job that was begun. What is done: `die` kills the process, `die once` only where the
    job is begun for the first time, `hang` takes a minute, `bug` raises, `full` finds the disk full, `score`
    asks after each of three epochs whether to go on, `slow` takes a fifth of a second, `learn` comes nearer to its
    accuracy epoch by epoch and asks after each, noting in `<number>.epochs` that it did.
    """

    folder: Path
    instead: Mapping[int, str] = field(default_factory=dict)
    always: str = ""
    unborn: bool = False

    def __call__(self) -> Try:
        """Return what tries plans."""
        if self.unborn:
            os._exit(7)
        return self._try

    def _try(self, job: Job, keep_going: KeepGoing) -> TrialOutcome:
        with (self.folder / f"{job.number}").open("a", encoding="ascii") as notes:
            notes.write(f"{os.getpid()} {job.reference_ms}\n")
        match self.instead.get(job.number, self.always):
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "die once" if self.begun(job.number) == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                time.sleep(60)
            case "slow":
                time.sleep(0.2)
            case "bug":
                raise ZeroDivisionError
            case "full":
                raise SearchEndedError("no space left on the disk")
            case "learn":
                return learned(job.plan, self._noting(job.number, keep_going))
            case "score":
                scores = (EpochScore(epoch=n, train_loss=1.0, accuracy=0.1 * n, seconds=1.0) for n in (1, 2, 3))
                last = next((score.epoch for score in scores if not keep_going(score)), None)
                return outcome_of(job.plan) if last is None else Stopped(epoch=last, reason="told to", curve=())
        return outcome_of(job.plan)

    def _noting(self, number: int, keep_going: KeepGoing) -> KeepGoing:
        def note(score: EpochScore) -> bool:
            with (self.folder / f"{number}.epochs").open("a", encoding="ascii") as notes:
                notes.write(f"{score.epoch}\n")
            return keep_going(score)

        return note

    def begun(self, number: int) -> int:
        """Return how often a job was begun."""
        return len((self.folder / f"{number}").read_text(encoding="ascii").splitlines())


def learned(plan: TrialPlan, keep_going: KeepGoing) -> TrialOutcome:
    """Return the outcome of a plan with its learning curve, cut off where it is told to stop."""
    whole = outcome_of(plan)
    if not isinstance(whole, Finished):
        return whole
    curve: list[EpochScore] = []
    for epoch in range(1, plan.training.epochs + 1):
        reached = whole.accuracy * (1 - 0.1 * 2 ** (1 - epoch))
        curve.append(EpochScore(epoch=epoch, train_loss=1.0, accuracy=reached, seconds=1.0))
        if not keep_going(curve[-1]):
            return Stopped(epoch=epoch, reason="told to", curve=tuple(curve))
    return replace(whole, curve=tuple(curve))
