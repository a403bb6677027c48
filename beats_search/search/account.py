"""Account: the trials of an Optuna study in, what the search knows of them out. Nothing is written here.

What a trial carries as user attributes: `plan` when it begins to run, then `outcome` with `began_s`
and `seconds`; `lost` while it is cut off and waits to be tried again, and how many `deaths` it has seen;
`duplicate_of` alone when its plan was known or under way. Trial 0 is the reference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from optuna.trial import FrozenTrial, Trial, TrialState

from beats_search.records.outcome import outcome_from_plain
from beats_search.records.plain import from_plain
from beats_search.records.plan import TrialPlan
from beats_search.records.run import REFERENCE, TrialRecord
from beats_search.search.rows import TrialRow

Loss: TypeAlias = Literal["interrupted", "killed", "crashed"]
"""What cut a trial off: the user, the end of its process, or an error that is no failure of the trial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """A trial that was cut off before it had an outcome."""

    number: int
    loss: Loss


@dataclass(slots=True, kw_only=True)
class Account:
    """What a search knows, kept up to date as trials are told.

    `drawn` are the fingerprints of all plans of the space that have an answer; `proposals` counts
    what samplers have proposed; `streak` counts repeats since the last trial that ran.
    """

    records: dict[int, TrialRecord] = field(default_factory=dict)
    known: dict[str, TrialRecord] = field(default_factory=dict)
    drawn: set[str] = field(default_factory=set)
    lost: list[Lost] = field(default_factory=list)
    duplicates: int = 0
    streak: int = 0
    proposals: int = 0

    def proposed(self) -> None:
        """Count a proposal that became a plan."""
        self.proposals += 1

    def ran(self, record: TrialRecord) -> None:
        """Count a trial that has an outcome."""
        fingerprint = record.plan.fingerprint()
        self.records[record.number] = record
        self.known[fingerprint] = record
        self.streak = 0
        if record.number != REFERENCE:
            self.drawn.add(fingerprint)

    def repeated(self, of: int) -> None:
        """Count a proposal that repeated the plan of trial `of`."""
        self.duplicates += 1
        self.drawn.add(self.records[of].plan.fingerprint())

    def to_retry(self) -> Lost | None:
        """Return the first trial that was cut off and is to be tried again."""
        return next(iter(self.lost), None)


def read_account(trials: Sequence[FrozenTrial], records: Mapping[int, TrialRecord] | None = None) -> Account:
    """Return what is known from the trials of a study, in the order of their numbers; `records` were read before."""
    records = records or {}
    account = Account()
    for trial in trials:
        carried = trial.user_attrs
        if trial.number != REFERENCE and carried.keys() & {"plan", "duplicate_of"}:
            account.proposed()
        if "outcome" in carried:
            account.ran(records.get(trial.number) or record_of(trial))
        elif "duplicate_of" in carried:
            account.streak += 1
            if carried["duplicate_of"] in account.records:
                account.repeated(carried["duplicate_of"])
        elif carried.get("lost") and trial.state is TrialState.RUNNING:
            account.lost.append(_lost(trial))
    return account


def read_history(trials: Sequence[TrialRow]) -> tuple[tuple[TrialRecord, ...], int]:
    """Return the trials that have an outcome, in the order of their numbers, and how many proposals repeated one."""
    records = tuple(record_of(trial) for trial in trials if "outcome" in trial.user_attrs)
    numbers = {record.number for record in records}
    repeated = [trial.user_attrs.get("duplicate_of") for trial in trials if "outcome" not in trial.user_attrs]
    return records, sum(of in numbers for of in repeated)


def plan_of(trial: Trial | FrozenTrial | TrialRow) -> TrialPlan:
    """Return the plan that a trial carries."""
    return from_plain(TrialPlan, trial.user_attrs["plan"])


def _lost(trial: FrozenTrial) -> Lost:
    return Lost(number=trial.number, loss=trial.user_attrs["lost"])


def record_of(trial: Trial | FrozenTrial | TrialRow) -> TrialRecord:
    """Return a trial that carries an outcome as a record."""
    return TrialRecord(
        number=trial.number,
        params=trial.params,
        plan=plan_of(trial),
        outcome=outcome_from_plain(trial.user_attrs["outcome"]),
        began_s=from_plain(float, trial.user_attrs["began_s"]),
        seconds=from_plain(float, trial.user_attrs["seconds"]),
        spared_at=trial.user_attrs.get("spared_at"),
        known={name: from_plain(float, value) for name, value in trial.user_attrs.get("known", {}).items()},
    )
