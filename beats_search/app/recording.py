"""Recording: a space and its folder in, the ledger of its run out; and the results beside it kept up to date."""

import contextlib
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from beats_search.app.sharing import exchange, hand_over, open_joint
from beats_search.records.errors import CommandError, NothingFinishedError, SearchEndedError
from beats_search.records.event import Carried, Ended, Event, Notify
from beats_search.records.plan import TrialPlan
from beats_search.records.run import RunRecord
from beats_search.search.folder import check_same_run, model_file, study_file, tidy_folder

if TYPE_CHECKING:
    from beats_search.measuring.quiet import QuietWindow
    from beats_search.search.ledger import Ledger
    from beats_search.search.reading import RunFacts
    from beats_search.space.knobs import SearchSpace
    from beats_search.trial.recipe import DataFacts

Watch: TypeAlias = Callable[[Event, RunRecord], None]
"""Called with each event of a search and the run as it stands after it."""

_PAGE_EVERY_S: Final = 30.0
_BRIEF_S: Final = 0.05
_MOST_SHARE: Final = 0.05
"""Tables that take longer than `_BRIEF_S` to write, and the page, take no more than this share of a search's time."""


def open_ledger(
    space: "SearchSpace", folder: Path, reference: TrialPlan, data: "DataFacts", *, join: bool = False
) -> "tuple[Ledger, Carried | None]":
    """Open the run's ledger, or start one, and say what was carried over when the space was edited since.

    A study in a shared storage is gone on with beside others where this process shall `join` them.

    Raises CommandError when the folder holds the run of another space, or one of which nothing fits any more.
    """
    from beats_search.report.files import replace_text
    from beats_search.search.ledger import Ledger

    facts, study = _facts(space, reference, data), study_file(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if space.search.storage:
            ledger, carried = open_joint(space.search.storage, folder, facts, join=join), None
        else:
            carried = _carried(space, folder, facts) if study.is_file() else None
            ledger = Ledger.open(study) if study.is_file() else Ledger.create(study, facts)
    except SearchEndedError as error:
        raise NothingFinishedError(str(error)) from error
    except PermissionError as error:
        raise CommandError(f"{folder} cannot be written: {error.strerror}; --out names another folder") from error
    with contextlib.ExitStack() as stack:
        stack.callback(ledger.close)
        tidy_folder(folder)
        replace_text(folder / "space.yaml", space.text)
        replace_text(folder / "environment.json", json.dumps(ledger.facts.environment, indent=2))
        stack.pop_all()
    return ledger, carried


def _carried(space: "SearchSpace", folder: Path, facts: "RunFacts") -> Carried | None:
    """Check that a run can go on, and carry its trials over to the space where that was edited."""
    from beats_search.search.carrying import Fit, carry_over
    from beats_search.search.domain import domain_of
    from beats_search.search.reading import read_facts
    from beats_search.space.fitting import values_of

    before = read_facts(study_file(folder))
    check_same_run(before, facts, folder)
    if before.space_canonical == facts.space_canonical:
        return None
    kept, told = carry_over(
        study_file(folder), facts, Fit(domain=domain_of(space), values_of=partial(values_of, space))
    )
    return Carried(kept=kept, told=told)


def _facts(space: "SearchSpace", reference: TrialPlan, data: "DataFacts") -> "RunFacts":
    from beats_search.measuring.machine import describe_machine
    from beats_search.search.reading import RunFacts

    return RunFacts(
        name=space.name,
        seed=space.seed,
        space_text=space.text,
        space_file=str(Path(space.file).resolve()),
        space_canonical=space.canonical(),
        objectives=space.objectives,
        constraints=space.constraints,
        reference=reference,
        environment=describe_machine(),
        classes=data.classes,
        input_shape=data.input_shape,
        columns=data.columns,
        data_digest=data.digest,
    )


def saving(ledger: "Ledger", folder: Path, watch: Watch) -> Notify:
    """Return a `notify` that keeps the results on disk as good as the trials that have ended."""
    from beats_search.report.page import write_results, write_tables

    draw_at = time.monotonic() + _PAGE_EVERY_S
    rest_until = 0.0

    def note(event: Event) -> None:
        nonlocal draw_at, rest_until
        record = ledger.run_record()
        if isinstance(event, Ended):
            hand_over(ledger, record, event.record, folder)
            if (began := time.monotonic()) >= rest_until:
                write_tables(record, folder)
                took = time.monotonic() - began
                rest_until = began + (took / _MOST_SHARE if took > _BRIEF_S else 0.0)
            if (began := time.monotonic()) >= draw_at:
                write_results(record, folder)
                took = time.monotonic() - began
                draw_at = began + took + max(_PAGE_EVERY_S, took / _MOST_SHARE)
        watch(event, record)

    return note


def conclude(ledger: "Ledger", folder: Path, window: "QuietWindow") -> RunRecord:
    """Test the front on the split that no search has seen, write all results, and return the run."""
    from beats_search.pareto import front_of_run
    from beats_search.report.page import write_results
    from beats_search.trial.run import test_accuracy

    exchange(ledger, folder)
    record = ledger.run_record()
    known = dict(record.test_accuracy)
    for trial, _ in (*front_of_run(record), *record.finished()[:1]):
        model = model_file(folder, trial.number)
        if trial.number not in known and model.exists():
            known[trial.number] = test_accuracy(trial.plan, model, window)
    ledger.set_test_accuracy(known)
    record = ledger.run_record()
    write_results(record, folder)
    return record
