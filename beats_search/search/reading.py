"""Reading: a run's study on disk in, its facts and its trials out. Nothing is written here."""

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import optuna
from optuna import Study
from optuna.exceptions import StorageInternalError
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from beats_search.records.column import Column
from beats_search.records.errors import CommandError
from beats_search.records.objective import Constraint, Objective
from beats_search.records.outcome import Latency
from beats_search.records.plain import from_plain
from beats_search.records.plan import TrialPlan
from beats_search.records.run import Confirmation, RunRecord, TrialRecord
from beats_search.search.account import Account, read_account, read_history
from beats_search.search.rows import trial_rows
from beats_search.search.storage import closing_storage, open_storage, root

MARK: Final = "beats_search"
"""The study attribute that says whose study it is; its value is the schema."""

SCHEMA: Final = 1
"""Raised whenever what a study carries changes its meaning."""


_FEWEST_OBJECTIVES: Final = 2
_ANEW: Final = "--fresh starts a new run"

_MISFITS: Final = (
    LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError, SQLAlchemyError,
    StorageInternalError,
)  # fmt: skip
"""What is raised by data that are none of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What is known of a run before its first trial; nothing of it changes later.

    `space_text` is the space as it was run, `space_file` the path that its relative paths and modules
    start from, `space_canonical` its form for comparison, `data_digest` that of its data. `columns` are
    those of a table. A study that is older than these two has neither.
    """

    name: str
    seed: int
    space_text: str
    space_file: str
    space_canonical: str
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    reference: TrialPlan
    environment: Mapping[str, str]
    classes: tuple[str, ...]
    input_shape: tuple[int, ...]
    columns: tuple[Column, ...] = ()
    data_digest: str = ""

    def __post_init__(self) -> None:
        """Refuse objectives that no space can have."""
        names = [objective.name for objective in self.objectives]
        if len({*names}) != len(names) or len(names) < _FEWEST_OBJECTIVES or "accuracy" not in names:
            raise ValueError(
                f"a run has two or three objectives, accuracy among them, got {', '.join(names) or 'none'}"
            )


def read_run(path: Path) -> RunRecord:
    """Return the run in the file at `path`, finished or not, also while another process writes there.

    Raises CommandError when the file is no study of ours, or damaged.
    """
    with closing_storage(open_storage(path)) as storage:
        study, facts = _read_facts(str(path), storage)
        with _understood(str(path)), _uncollected():
            return _run_record(study, facts, *read_history(trial_rows(study, storage)))


def is_study(path: Path) -> bool:
    """Tell whether the file at `path` is a study of beats-search, of this version or another."""
    try:
        storage = open_storage(path)
    except CommandError:
        return False
    try:
        with closing_storage(storage):
            return any(MARK in study.user_attrs for study in storage.get_all_studies())
    except _MISFITS:
        return False


def read_facts(path: Path) -> RunFacts:
    """Return what was known of the run in the file at `path` before its first trial.

    Raises CommandError when the file is no study of ours, or damaged.
    """
    with closing_storage(open_storage(path)) as storage:
        return _read_facts(str(path), storage)[1]


def read_study(where: str, storage: RDBStorage, name: str | None = None) -> tuple[Study, RunFacts, Account]:
    """Return a study, the only one unless it has a name, with its facts and what is known of its trials.

    Raises CommandError, which says `where`, when they do not fit.
    """
    study, facts = _read_facts(where, storage, name)
    with _understood(where):
        return study, facts, read_account(study.get_trials(deepcopy=False))


def run_record(study: Study, facts: RunFacts, account: Account) -> RunRecord:
    """Return the run as it stands, with the final latencies of the trials that were timed once more."""
    trials = tuple(account.records[number] for number in sorted(account.records))
    return _run_record(study, facts, trials, account.duplicates)


def _read_facts(where: str, storage: RDBStorage, name: str | None = None) -> tuple[Study, RunFacts]:
    """Return a study, the only one unless it has a name, with its facts."""
    with _understood(where):
        return _facts_of(where, storage, name)


def _facts_of(where: str, storage: RDBStorage, name: str | None) -> tuple[Study, RunFacts]:
    try:
        study = optuna.load_study(study_name=name, storage=storage, sampler=RandomSampler())
        attributes = study.user_attrs
        schema = attributes[MARK]
    except (KeyError, ValueError) as error:
        raise CommandError(f"{where} is no study of beats-search; --out names another folder") from error
    if schema != SCHEMA:
        raise CommandError(
            f"{where} is a run of another version of beats-search (schema {schema}, not {SCHEMA}); {_ANEW}"
        )
    known = {field.name: attributes[field.name] for field in fields(RunFacts) if field.name in attributes}
    return study, from_plain(RunFacts, known)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep Python from looking for cycles among records, which have none: it takes as long as reading them."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def _understood(where: str) -> Iterator[None]:
    """Turn what does not fit our records into CommandError, which says `where`."""
    try:
        yield
    except _MISFITS as error:
        what = f"{type(root(error)).__name__}: {root(error)}"
        raise CommandError(
            f"{where} is a run of another version of beats-search, or damaged ({what}); {_ANEW}"
        ) from error


def _run_record(study: Study, facts: RunFacts, trials: tuple[TrialRecord, ...], duplicates: int) -> RunRecord:
    attributes = study.user_attrs
    final = {
        int(number): from_plain(Latency, latency) for number, latency in attributes.get("final_latency", {}).items()
    }
    searched = RunRecord(
        name=facts.name,
        sampler=from_plain(str, attributes.get("sampler", "")),
        seed=facts.seed,
        objectives=facts.objectives,
        constraints=facts.constraints,
        reference_point={
            name: from_plain(float, value) for name, value in attributes.get("reference_point", {}).items()
        },
        trials=trials,
        duplicates=duplicates,
        environment=facts.environment,
        classes=facts.classes,
        input_shape=facts.input_shape,
        columns=facts.columns,
        test_accuracy={
            int(number): from_plain(float, share) for number, share in attributes.get("test_accuracy", {}).items()
        },
        confirmed={
            int(number): from_plain(Confirmation, told) for number, told in attributes.get("confirmed", {}).items()
        },
    )
    return searched.timed_once_more(final)
