"""Running: a request in, a searched space and its results in a folder out."""

import contextlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from beats_search.app.first_look import counters, first_look
from beats_search.app.problem import depot_address, problem_of, store_of
from beats_search.app.recording import Watch, conclude, open_ledger, saving
from beats_search.app.sharing import copy_to, exchange
from beats_search.app.spaces import read
from beats_search.app.working import Hire, hiring, instruments, workplace_of
from beats_search.records.errors import BeatsError, CommandError, NothingFinishedError, SearchEndedError
from beats_search.records.event import Confirming, Noticed, Notify, Retiming
from beats_search.records.outcome import Finished
from beats_search.records.run import Confirmation, RunRecord
from beats_search.search.folder import check_folder, clear_folder, model_file, tidy_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from beats_search.measuring.quiet import QuietWindow
    from beats_search.records.search_plan import SearchPlan
    from beats_search.search.ledger import Ledger
    from beats_search.space.knobs import SearchSpace
    from beats_search.trial.run import Instruments


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What `run` is asked for; `changes` are `path=value` texts, `out` defaults to reports/<name>.

    `join` works on a study in a shared storage beside others.
    """

    space: Path
    changes: tuple[str, ...] = ()
    out: Path | None = None
    fresh: bool = False
    join: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """Where a run is, how it stands, and why the search ended, as a sentence."""

    folder: Path
    record: RunRecord
    ending: str
    interrupted: bool


def run(request: RunRequest, watch: Watch = lambda _event, _record: None, hire: Hire | None = None) -> RunResult:
    """Search a space, or go on with its search, and leave front, models and page in the run folder.

    Trials are run by processes of this machine, unless `hire` says by whom.
    Raises a BeatsError; after NothingFinishedError and SearchEndedError, what had finished is reported.
    """
    with hiring() if hire is None else contextlib.nullcontext(lambda _: hire) as hires:
        return _run(request, watch, hires)


def _run(request: RunRequest, watch: Watch, hires: "Callable[[str], Hire]") -> RunResult:
    from beats_search.measuring.quiet import window_of_machine
    from beats_search.search.sitting import Ending
    from beats_search.search.study import search

    space, window = read(request.space, request.changes), window_of_machine()
    folder = request.out or Path("reports") / space.name
    _check_joining(request, space.search)
    check_folder(folder, fresh=request.fresh)
    hired = hires(space.search.backend)
    with first_look(space, window) as (reference, paired, data):
        if request.fresh:
            _clear(folder, space)
        ledger, carried = open_ledger(space, folder, reference, data, join=request.join)
        with ledger, contextlib.ExitStack() as at_last:
            at_last.callback(tidy_folder, folder)  # what processes that were killed had written aside
            tools = instruments(
                window,
                reuse=space.search.reuse,
                store=store_of(space),
                counters=counters(space),
                depot=depot_address(),
            )
            problem = problem_of(space, ledger, folder, paired, data, tools)
            drive = hired(problem, workplace_of(space, folder, reference, paired), space.search)
            notify = saving(ledger, folder, watch)
            for text in data.notices:
                notify(Noticed(text=text))
            if carried is not None:
                notify(carried)
            try:
                ending = search(problem, ledger, space.search, notify, drive=drive)
                if ending is not Ending.INTERRUPTED and not _settled(ledger, folder, space.search, tools, notify):
                    ending = Ending.INTERRUPTED
            except (NothingFinishedError, SearchEndedError) as error:
                with contextlib.suppress(BeatsError, OSError):
                    _conclude(ledger, folder, space, window)
                if not any(isinstance(trial.outcome, Finished) for trial in ledger.account.records.values()):
                    raise NothingFinishedError(str(error)) from error
                raise
            record = _conclude(ledger, folder, space, window)
    return RunResult(folder=folder, record=record, ending=ending.value, interrupted=ending is Ending.INTERRUPTED)


def _check_joining(request: RunRequest, plan: "SearchPlan") -> None:
    if request.join and not plan.storage:
        raise CommandError(
            "--join needs a storage that others use too: `search: {storage: postgresql://user@host/name}`"
        )
    if request.join and request.fresh:
        raise CommandError("--fresh deletes the study that --join works on; give one of them")


def _clear(folder: Path, space: "SearchSpace") -> None:
    """Delete the run in a folder, and its study where that is in a shared storage."""
    if space.search.storage:
        from beats_search.search.shared import forget_shared

        forget_shared(space.search.storage, space.name)
    clear_folder(folder)


def _conclude(ledger: "Ledger", folder: Path, space: "SearchSpace", window: "QuietWindow") -> RunRecord:
    """Write all results, and the study beside them where that is in a shared storage."""
    from beats_search.search.storage import kept

    with kept(ledger.where):
        record = conclude(ledger, folder, window)
        if space.search.storage:
            copy_to(folder, space.search.storage, space.name)
    return record


def _settled(ledger: "Ledger", folder: Path, plan: "SearchPlan", tools: "Instruments", notify: Notify) -> bool:
    """Time the front once more and train it anew where that is asked for; tell whether that was not interrupted."""
    from beats_search.search.storage import kept

    try:
        with kept(ledger.where):
            exchange(ledger, folder)
        _time_once_more(ledger, folder, tools.window, notify)
        _confirm(ledger, plan.confirm, tools.window, notify)
    except KeyboardInterrupt:
        return False
    return True


def _time_once_more(ledger: "Ledger", folder: Path, window: "QuietWindow", notify: Notify) -> None:
    """Time what may be on the front side by side and note it."""
    from beats_search.trial.retiming import retime, to_retime

    record, model_of = ledger.run_record(), partial(model_file, folder)
    trials = to_retime(record, model_of)
    if trials:
        notify(Retiming(count=len(trials)))
        with window.measuring():
            ledger.set_final_latencies(retime(record, trials, model_of))


def _confirm(ledger: "Ledger", count: int, window: "QuietWindow", notify: Notify) -> None:
    """Train each member of the front anew with other seeds, those apart that have been, and note what it reached."""
    from beats_search.pareto import front_of_run
    from beats_search.trial.confirming import confirm

    for trial, _ in front_of_run(ledger.run_record()):
        for index in range(1, count + 1):
            known = dict(ledger.run_record().confirmed)
            found = known.get(trial.number, Confirmation(seeds=(), accuracy=()))
            seed = trial.plan.seed + index
            if seed in found.seeds:
                continue
            notify(Confirming(number=trial.number, index=index, count=count))
            share = confirm(trial.plan, seed, window)
            again = Confirmation(seeds=(*found.seeds, seed), accuracy=(*found.accuracy, share))
            ledger.set_confirmed(known | {trial.number: again})
