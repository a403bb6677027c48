"""Sharing: a run that several machines work on in, its ledger, and its models from one machine to another, out."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from beats_search.app.working import keep_model
from beats_search.records.errors import CommandError
from beats_search.records.run import REFERENCE, RunRecord, TrialRecord
from beats_search.search.folder import check_same_run, model_file, study_file

if TYPE_CHECKING:
    from beats_search.search.ledger import Ledger
    from beats_search.search.reading import RunFacts


def open_joint(storage: str, folder: Path, facts: "RunFacts", *, join: bool) -> "Ledger":
    """Open the ledger of a run in a database, and leave a copy of its study in the folder.

    Raises CommandError when the database cannot be used, or the study there, or the run in the folder, is another.
    """
    from beats_search.search.shared import is_copy, open_shared

    if study_file(folder).is_file() and not is_copy(study_file(folder)):
        text = f"{folder} holds a run of its own, which is in no shared storage"
        raise CommandError(f"{text}; --out names another folder, --fresh deletes that run")
    lock = study_file(folder).with_suffix(".lock")
    ledger = open_shared(storage, facts, lambda before: _check(before, facts, folder, storage), join=join, lock=lock)
    with contextlib.ExitStack() as stack:
        stack.callback(ledger.close)
        copy_to(folder, storage, facts.name)
        stack.pop_all()
    return ledger


def copy_to(folder: Path, storage: str, name: str) -> None:
    """Leave the study as it stands in the folder, for `show` and `report`, which never connect to anything."""
    from beats_search.search.shared import copy_shared

    copy_shared(storage, name, study_file(folder))


def hand_over(ledger: "Ledger", record: RunRecord, trial: TrialRecord, folder: Path) -> None:
    """Let other machines have the model of a trial of this one that has just reached the front; the reference's too."""
    from beats_search.pareto import front_of_run

    if ledger.handover is None:
        return
    wanted = {REFERENCE, *(member.number for member, _ in front_of_run(record))}
    model = model_file(folder, trial.number)
    if trial.number not in wanted or not model.exists():
        return
    if ledger.handover.get(trial.number) is None:
        ledger.handover.put(trial.number, model.name, model.read_bytes())


def exchange(ledger: "Ledger", folder: Path) -> None:
    """Write the models of the front that other machines have made into the folder, and give them those of this one."""
    from beats_search.pareto import front_of_run

    if ledger.handover is None:
        return
    record = ledger.run_record()
    for trial in (*(member for member, _ in front_of_run(record)), *(first for first, _ in record.finished()[:1])):
        model, found = model_file(folder, trial.number), ledger.handover.get(trial.number)
        if found is None and model.exists():
            ledger.handover.put(trial.number, model.name, model.read_bytes())
        elif found is not None and not model.exists():
            keep_model(folder, trial.number, *found)


def _check(then: "RunFacts", now: "RunFacts", folder: Path, storage: str) -> None:
    check_same_run(then, now, folder)
    if then.space_canonical != now.space_canonical:
        text = f"{storage}, study {now.name!r}, is of another space than {now.space_file} as it is now"
        raise CommandError(f"{text}; give the space another name, or --fresh deletes the study")
