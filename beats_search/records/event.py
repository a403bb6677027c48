"""Events: what a search tells while it goes on, for a display to show."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from beats_search.records.plan import TrialPlan
from beats_search.records.run import TrialRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Began:
    """A trial begins to run."""

    number: int
    plan: TrialPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A trial ran and its outcome is on disk."""

    record: TrialRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeated:
    """Proposal `number` repeats the plan of trial `of` and was answered from it; nothing ran."""

    number: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reclaimed:
    """Trial `number` was left running by a process that died; its plan gets a second attempt, but no third."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Retiming:
    """The search has ended, and `count` models are timed once more beside the reference."""

    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """The space was edited: `kept` of `told` trials fit it as it is now and count; the others are left out."""

    kept: int
    told: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirming:
    """Trial `number` of the front is trained anew from scratch with another seed, the `index`-th of `count` times."""

    number: int
    index: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Noticed:
    """Something about the data that is allowed and may surprise, as a sentence."""

    text: str


Event: TypeAlias = Began | Ended | Repeated | Reclaimed | Retiming | Carried | Confirming | Noticed
Notify: TypeAlias = Callable[[Event], None]
"""Called with each event, in the process that searches."""
