"""Problem: a space and the ledger of its run in, what the search needs to try plans of it out."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from beats_search.records.errors import CommandError
from beats_search.records.outcome import Finished, TrialOutcome
from beats_search.records.plan import TrialPlan
from beats_search.records.run import REFERENCE
from beats_search.search.folder import model_file

if TYPE_CHECKING:
    from beats_search.search.attempt import KeepGoing, RunTrial
    from beats_search.search.ledger import Ledger
    from beats_search.search.sitting import Problem
    from beats_search.space.knobs import SearchSpace
    from beats_search.trial.recipe import DataFacts
    from beats_search.trial.run import Instruments, Reference

STORE: Final = "BEATS_SEARCH_STORE"
"""The environment variable that names where trained stages are kept for all runs: a folder, or an fsspec address."""

_MOST_KEPT: Final = 1024
"""A plan is asked for when it is proposed and when it begins; to find out that its like was timed takes 50 ms."""


def problem_of(
    space: "SearchSpace", ledger: "Ledger", folder: Path, paired: "Reference", data: "DataFacts", tools: "Instruments"
) -> "Problem":
    """Return the problem of a space whose run is in `folder`; latencies are paired with `paired`."""
    from beats_search.app.usual import starting_at
    from beats_search.pareto import worst_corner
    from beats_search.search.domain import domain_of
    from beats_search.search.sitting import Problem
    from beats_search.search.stopping import Stopping
    from beats_search.trial.cost import PROBE_S, cost
    from beats_search.trial.probe import decides

    on_scale = _on_scale_of(ledger, paired)
    return Problem(
        domain=starting_at(domain_of(space), space, ledger.facts.reference),
        run_trial=_trials(folder, on_scale, tools),
        reference_point=partial(worst_corner, space.objectives, data.majority_share),
        known=_known(on_scale, tools) if space.search.probe else None,
        cost=partial(cost, store=tools.store),
        query_cost=PROBE_S,
        decides=decides,
        stopping=Stopping() if space.search.stop_early else None,
    )


def store_of(space: "SearchSpace") -> Path | None:
    """Return the folder in which trained stages are kept; None where the space asks that nothing be reused.

    Raises CommandError when there can be no such folder.
    """
    if not space.search.reuse:
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    check_depot()
    folder = Path((not depot_address() and os.environ.get(STORE)) or cache / "beats-search" / "stages")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        way = f"set {STORE} to a folder that can be written, or `search: {{reuse: false}}` to keep nothing"
        raise CommandError(f"trained stages cannot be kept in {folder}: {error.strerror}; {way}") from error
    return folder


def depot_address() -> str:
    """Return the address at which machines share trained stages, empty where they are kept in a folder alone."""
    from beats_search.trial.depot import is_address

    address = os.environ.get(STORE, "")
    return address if is_address(address) else ""


def check_depot() -> None:
    """Raise CommandError when machines shall share trained stages at an address where there can be nothing."""
    from beats_search.trial.depot import Depot

    address = depot_address()
    if not address:
        return
    try:
        Depot(address).check()
    except Exception as error:  # whatever library connects to it may raise anything
        what = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise CommandError(f"trained stages cannot be kept at {STORE}={address}: {what}") from error


def _on_scale_of(ledger: "Ledger", paired: "Reference") -> Callable[[], "Reference"]:
    """Return what gives the reference, with the median of trial 0 as soon as that has finished."""

    def on_scale() -> "Reference":
        known = ledger.account.records.get(REFERENCE)
        median = known.outcome.latency.median_ms if known and isinstance(known.outcome, Finished) else None
        return replace(paired, median_ms=median)

    return on_scale


def _trials(folder: Path, on_scale: Callable[[], "Reference"], tools: "Instruments") -> "RunTrial":
    from beats_search.trial.run import run_trial

    def run_number(number: int, plan: TrialPlan, keep_going: "KeepGoing") -> TrialOutcome:
        return run_trial(plan, model_file(folder, number).parent, on_scale(), keep_going, instruments=tools)

    return run_number


def _known(on_scale: Callable[[], "Reference"], tools: "Instruments") -> Callable[[TrialPlan], Mapping[str, float]]:
    from beats_search.trial.probe import foreseen, probe_file

    @lru_cache(_MOST_KEPT)
    def known(plan: TrialPlan, reference: "Reference") -> Mapping[str, float]:
        return foreseen(plan, probe_file(plan, reference, tools.window, timed=tools.timed))

    return lambda plan: known(plan, on_scale())
