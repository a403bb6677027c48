"""Carrying: the study of a space that was edited in, a study of the space as it is now with all trials that fit it out.

Numbers stay, since models are found by them: what does not fit leaves a trial behind that no one counts.
"""

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from beats_search.records.errors import CommandError
from beats_search.records.outcome import Failed, Finished, Stopped, TrialOutcome
from beats_search.records.part import Scalar
from beats_search.records.plain import to_plain
from beats_search.records.plan import TrialPlan
from beats_search.records.run import REFERENCE, TrialRecord
from beats_search.search.account import record_of
from beats_search.search.domain import Domain, distribution
from beats_search.search.folder import PREVIOUS
from beats_search.search.ledger import write_facts
from beats_search.search.lock import Lock
from beats_search.search.reading import RunFacts, read_study
from beats_search.search.storage import closing_storage, create_storage, kept, open_storage

_SITTINGS: Final = ("sampler", "test_accuracy", "confirmed")
"""What was noted on a study of single trials, and stays true of them."""

_OF_THE_REFERENCE: Final = ("reference_point", "final_latency")
"""What holds as long as the reference and what counts stay as they were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The space as it is now: its domain, and the values of knobs that give a plan, None where none do."""

    domain: Domain
    values_of: Callable[[TrialPlan], Mapping[str, Scalar] | None]


def carry_over(path: Path, facts: RunFacts, fit: Fit) -> tuple[int, int]:
    """Replace the study at `path` by one with these facts and every trial that fits; return how many did, of how many.

    The old study is kept beside it, as `PREVIOUS`. Raises CommandError, and leaves everything as it is,
    when the folder is in use, the study cannot be read, or nothing but the reference fits.
    """
    lock, aside = Lock(path.with_suffix(".lock")), path.with_suffix(".new")
    try:
        with closing_storage(open_storage(path)) as old:
            study, before, account = read_study(str(path), old)
            trials, attributes = study.get_trials(deepcopy=False), study.user_attrs
        edit = _Edit(facts=facts, fit=fit, before=before)
        carried = [edit.carried(trial) for trial in trials]
        told = sum("outcome" in trial.user_attrs for trial in carried[REFERENCE + 1 :])
        counted = sum(number != REFERENCE for number in account.records)
        if counted and not told:
            raise CommandError(
                f"{path.parent}: no trial of its run fits {facts.space_file} as it is now; "
                "--fresh starts anew, --out names another folder"
            )
        aside.unlink(missing_ok=True)
        with kept(str(path)), closing_storage(create_storage(aside)) as storage:
            notes = (*_SITTINGS, *(() if edit.moved else _OF_THE_REFERENCE))
            _write(storage, facts, carried, {name: attributes[name] for name in notes if name in attributes})
        shutil.copyfile(path, path.with_name(PREVIOUS))
        aside.replace(path)
    finally:
        lock.release()
    return told, counted


def _write(storage: RDBStorage, facts: RunFacts, trials: list[FrozenTrial], notes: Mapping[str, Any]) -> None:
    study = write_facts(storage, facts)
    study.add_trials(trials)
    for name, note in notes.items():
        study.set_user_attr(name, note)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edit:
    """A run before and after its space was edited."""

    facts: RunFacts
    fit: Fit
    before: RunFacts

    @property
    def moved(self) -> bool:
        """Whether what trials are judged by is another than it was."""
        judged = ("reference", "objectives", "constraints")
        return any(getattr(self.before, name) != getattr(self.facts, name) for name in judged)

    def carried(self, trial: FrozenTrial) -> FrozenTrial:
        """Return a trial as the new study has it; one that does not fit is closed and empty."""
        if trial.number == REFERENCE:
            return self._reference(trial)
        record = record_of(trial) if "outcome" in trial.user_attrs else None
        values = self.fit.values_of(record.plan) if record else None
        if record is None or values is None or not self._still_holds(record.outcome):
            return create_trial(state=TrialState.FAIL, user_attrs={"left_out": "does not fit the space as edited"})
        return self._told(record, values, trial)

    def _reference(self, trial: FrozenTrial) -> FrozenTrial:
        """Return trial 0: as it was told where its plan is the same, else open, to be tried when the search goes on."""
        if self.before.reference == self.facts.reference and trial.state.is_finished():
            return create_trial(state=trial.state, user_attrs=trial.user_attrs)
        plan = to_plain(self.facts.reference)
        return create_trial(state=TrialState.RUNNING, user_attrs={"plan": plan, "running": False})

    def _still_holds(self, outcome: TrialOutcome) -> bool:
        """Tell whether an outcome is one by what counts now: who was stopped was judged, and not all was measured."""
        if isinstance(outcome, Finished):
            counting = [goal.name for goal in self.facts.objectives] + [limit.name for limit in self.facts.constraints]
            return all(math.isfinite(outcome.value(name)) for name in counting)
        return not (isinstance(outcome, Stopped) and self.moved)

    def _told(self, record: TrialRecord, values: Mapping[str, Scalar], trial: FrozenTrial) -> FrozenTrial:
        told = partial(
            create_trial,
            params=dict(values),
            distributions={path: distribution(self.fit.domain[path]) for path in values},
            user_attrs=trial.user_attrs,
        )
        match record.outcome:
            case Finished() as outcome:
                return told(
                    values=[outcome.value(goal.name) for goal in self.facts.objectives],
                    constraints={str(limit): limit.violation(outcome) for limit in self.facts.constraints},
                )
            case Stopped():
                return told(state=TrialState.PRUNED)
            case Failed():
                return told(state=TrialState.FAIL)
