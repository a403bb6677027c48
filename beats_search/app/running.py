"""Running: a request in, a searched space and its results in a folder out."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from beats_search.app.first_look import counters, first_look
from beats_search.app.recording import Watch, conclude, open_ledger, saving
from beats_search.app.spaces import read
from beats_search.records.errors import BeatsError, NothingFinishedError, SearchEndedError
from beats_search.records.event import Notify, Retiming
from beats_search.records.outcome import Finished, TrialOutcome
from beats_search.records.plan import TrialPlan
from beats_search.records.run import REFERENCE, RunRecord
from beats_search.search.folder import check_folder, clear_folder, model_file

if TYPE_CHECKING:
    from beats_search.measuring.quiet import QuietWindow
    from beats_search.search.ledger import Ledger
    from beats_search.trial.run import Instruments, Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What `run` is asked for; `changes` are `path=value` texts, `out` defaults to reports/<name>."""

    space: Path
    changes: tuple[str, ...] = ()
    out: Path | None = None
    fresh: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """Where a run is, how it stands, and why the search ended, as a sentence."""

    folder: Path
    record: RunRecord
    ending: str
    interrupted: bool


def run(request: RunRequest, watch: Watch = lambda _event, _record: None) -> RunResult:
    """Search a space, or go on with its search, and leave front, models and page in the run folder.

    Raises a BeatsError; after NothingFinishedError and SearchEndedError, what had finished is reported.
    """
    from beats_search.measuring.quiet import QuietWindow
    from beats_search.pareto import worst_corner
    from beats_search.search.domain import domain_of
    from beats_search.search.study import Ending, Problem, search
    from beats_search.trial.run import Instruments

    space = read(request.space, request.changes)
    folder = request.out or Path("reports") / space.name
    check_folder(folder, fresh=request.fresh)
    with first_look(space) as (reference, paired, data):
        if request.fresh:
            clear_folder(folder)
        with open_ledger(space, folder, reference, data) as ledger:
            tools = Instruments(window=QuietWindow(folder=folder), counters=counters(space))
            problem = Problem(
                domain=domain_of(space),
                run_trial=_trials_of(ledger, folder, paired, tools),
                reference_point=partial(worst_corner, space.objectives, data.majority_share),
            )
            notify = saving(ledger, folder, watch)
            try:
                ending = search(problem, ledger, space.search, notify)
                if ending is not Ending.INTERRUPTED and not _timed_once_more(ledger, folder, tools.window, notify):
                    ending = Ending.INTERRUPTED
            except (NothingFinishedError, SearchEndedError) as error:
                with contextlib.suppress(BeatsError, OSError):
                    conclude(ledger, folder)
                if not ledger.run_record().finished():
                    raise NothingFinishedError(str(error)) from error
                raise
            record = conclude(ledger, folder)
    return RunResult(folder=folder, record=record, ending=ending.value, interrupted=ending is Ending.INTERRUPTED)


def _trials_of(
    ledger: "Ledger", folder: Path, paired: "Reference", tools: "Instruments"
) -> Callable[[int, TrialPlan], TrialOutcome]:
    """Return what runs a trial in a folder, its latency on the scale of trial 0 as soon as that has finished."""
    from beats_search.trial.run import run_trial

    def run_number(number: int, plan: TrialPlan) -> TrialOutcome:
        known = ledger.account.records.get(REFERENCE)
        median = known.outcome.latency.median_ms if known and isinstance(known.outcome, Finished) else None
        return run_trial(plan, model_file(folder, number).parent, replace(paired, median_ms=median), instruments=tools)

    return run_number


def _timed_once_more(ledger: "Ledger", folder: Path, window: "QuietWindow", notify: Notify) -> bool:
    """Time what may be on the front side by side and note it; tell whether that was not interrupted."""
    from beats_search.trial.retiming import retime, to_retime

    record, model_of = ledger.run_record(), partial(model_file, folder)
    trials = to_retime(record, model_of)
    try:
        if trials:
            notify(Retiming(count=len(trials)))
            with window.measuring():
                ledger.set_final_latencies(retime(record, trials, model_of))
    except KeyboardInterrupt:
        return False
    return True
