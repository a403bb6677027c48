"""Crew: jobs in, what becomes of them out, some at a time. Who tries plans out, wherever that is."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self, TypeAlias, final

from beats_search.records.outcome import EpochScore, Failed, TrialOutcome
from beats_search.records.plan import TrialPlan
from beats_search.search.attempt import RunTrial

Judge: TypeAlias = Callable[[int, EpochScore], bool]
"""Tells of a trial, by its number and after an epoch that is a rung, whether it goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A plan to be tried as trial `number`, and what is known of it before training.

    `reference_ms` is the median latency of trial 0, once that is known.
    """

    number: int
    plan: TrialPlan
    reference_ms: float | None = None
    known: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a job ended, and the epoch after which it was spared where another process has judged it."""

    number: int
    outcome: TrialOutcome
    spared_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dead:
    """A job whose process ended before it did; `how` says so in words."""

    number: int
    how: str


def overdue(number: int, seconds: float) -> Done:
    """Return how a job ends that takes longer than so many seconds."""
    reason = f"took longer than search.trial_timeout, {seconds:g} s"
    return Done(number=number, outcome=Failed(stage="timeout", reason=reason))


class Crew(Protocol):
    """Tries up to `size` plans at a time; a context manager, at whose end nothing runs any more."""

    @property
    def size(self) -> int:
        """Return how many jobs may be under way."""

    def begin(self, job: Job) -> None:
        """Take on a job; there are fewer than `size` under way."""

    def wait(self, judge: Judge) -> Done | Dead:
        """Return the next job that has ended, and ask the judge after each rung of all others; one is under way.

        Raises what ends the search: SearchEndedError of a full disk, or an error that is no failure of a trial.
        """

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End whatever is under way."""


@final
class Inline:
    """A crew of this process itself, which tries one plan at a time."""

    size = 1

    def __init__(self, run_trial: RunTrial) -> None:
        """Try plans by a function."""
        self._run_trial = run_trial
        self._jobs: deque[Job] = deque()

    def begin(self, job: Job) -> None:
        """Note a job."""
        self._jobs.append(job)

    def wait(self, judge: Judge) -> Done | Dead:
        """Do the job."""
        job = self._jobs.popleft()
        return Done(
            number=job.number, outcome=self._run_trial(job.number, job.plan, lambda score: judge(job.number, score))
        )

    def __enter__(self) -> Self:
        """Return the crew."""
        return self

    def __exit__(self, *_: object) -> None:
        """Forget what has not been done."""
        self._jobs.clear()
