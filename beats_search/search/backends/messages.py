"""Messages: jobs, scores and outcomes in, bytes out, and back. Nothing is pickled, so nothing is unpickled."""

import json
from dataclasses import dataclass
from typing import Any, TypeAlias, assert_never, cast

from beats_search.records.outcome import EpochScore, TrialOutcome, outcome_from_plain
from beats_search.records.plain import Plain, from_plain, tagged, to_plain
from beats_search.records.plan import TrialPlan
from beats_search.search.crew import Job


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker can take a job on."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A worker asks whether its trial goes on, which has taken so many seconds of its own."""

    score: EpochScore
    own_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Ended:
    """A worker's trial has ended."""

    outcome: TrialOutcome


@dataclass(frozen=True, slots=True)
class Raised:
    """What ends the search was raised in a worker: `kind` says whether it is a full disk or a bug."""

    kind: str
    text: str


DISK, BUG = "disk", "bug"
Report: TypeAlias = Ready | Scored | Ended | Raised


def write_job(job: Job) -> bytes:
    """Return a job as bytes."""
    return json.dumps(to_plain(job)).encode()


def read_job(data: bytes) -> Job:
    """Return the job in some bytes."""
    told = json.loads(data)
    return Job(**{**told, "plan": from_plain(TrialPlan, told["plan"])})


def write_report(report: Report) -> bytes:
    """Return what a worker tells as bytes."""
    match report:
        case Ready():
            told: dict[str, Plain] = {"ready": True}
        case Scored(score=score, own_s=own_s):
            told = {"score": to_plain(score), "own_s": own_s}
        case Ended(outcome=outcome):
            told = {"outcome": tagged(outcome)}
        case Raised(kind=kind, text=text):
            told = {"raised": kind, "text": text}
        case _:
            assert_never(report)
    return json.dumps(told).encode()


def read_report(data: bytes) -> Report:
    """Return what a worker tells in some bytes."""
    match cast("dict[str, Any]", json.loads(data)):
        case {"score": score, "own_s": own_s}:
            return Scored(from_plain(EpochScore, score), own_s)
        case {"outcome": outcome}:
            return Ended(outcome_from_plain(outcome))
        case {"raised": kind, "text": text}:
            return Raised(kind, text)
    return Ready()
