"""Study: a problem and a ledger in, trials told to the ledger until a budget is spent. The loop on one screen."""

import gc
import time
from collections.abc import Callable
from typing import Final, TypeAlias

from beats_search.records.event import Notify
from beats_search.records.search_plan import SearchPlan
from beats_search.search.crew import Crew, Inline, Job
from beats_search.search.ledger import Ledger
from beats_search.search.sitting import Ending, Problem, Sitting
from beats_search.search.storage import is_disk_failure, kept

_POLL_S: Final = 0.5

Drive: TypeAlias = Callable[[Sitting], Ending]
"""Runs the trials of a sitting until it has no more, and returns why."""


def search(
    problem: Problem,
    ledger: Ledger,
    budget: SearchPlan,
    notify: Notify = lambda _: None,
    *,
    drive: Drive | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Ending:
    """Run trials until a budget is spent or nothing is left to try, and return why it ended.

    Unless `drive` says by whom trials are run, this process tries one plan at a time. What the ledger knows
    counts: a search goes on where it was. Ctrl-C is an ending like any other.
    Raises NothingFinishedError when the reference does not finish, SearchEndedError when the disk
    cannot be written; any other exception of a trial passes through.
    """
    began, before, attempts = clock(), ledger.seconds, 1 + budget.retries
    with kept(ledger.where):
        try:
            sitting = Sitting(problem, ledger, budget, notify, lambda: before + clock() - began)
            ending = (drive or by(Inline(problem.run_trial)))(sitting)
        except KeyboardInterrupt:
            ending = Ending.INTERRUPTED
        except Exception as error:
            if not is_disk_failure(error):
                ledger.reclaim("crashed", attempts)
            raise
        if ending is Ending.INTERRUPTED:
            gc.collect()  # a write that was broken off keeps the study locked for as long as its frames are there
        ledger.reclaim("interrupted", attempts)
        return ending


def by(crew: Crew) -> Drive:
    """Return what lets a crew run the trials of a sitting."""

    def drive(sitting: Sitting) -> Ending:
        with crew:
            return _search(sitting, crew)

    return drive


def _search(sitting: Sitting, crew: Crew) -> Ending:
    under_way = 0
    while True:
        job = sitting.next_job() if under_way < crew.size else None
        if isinstance(job, Job):
            crew.begin(job)
            under_way += 1
        elif isinstance(job, Ending) and not under_way:
            return job
        elif under_way:
            sitting.settle(crew.wait(sitting.judge))
            under_way -= 1
        else:  # only other machines have trials under way
            time.sleep(_POLL_S)
