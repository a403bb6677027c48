"""Study: a problem and a ledger in, trials told to the ledger until a budget is spent. The loop on one screen."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from optuna import Trial
from optuna.samplers import BaseSampler

from beats_search import plugins
from beats_search.records.errors import NothingFinishedError
from beats_search.records.event import Began, Ended, Notify, Reclaimed, Repeated
from beats_search.records.outcome import Failed, Finished, Stopped, TrialOutcome
from beats_search.records.plan import TrialPlan
from beats_search.records.run import REFERENCE, TrialRecord
from beats_search.records.search_plan import SearchPlan
from beats_search.search.attempt import Known, RunTrial, attempt
from beats_search.search.domain import Domain
from beats_search.search.foresight import Foresight
from beats_search.search.ledger import Ledger
from beats_search.search.proposal import Asked, SamplerPart
from beats_search.search.reading import RunFacts
from beats_search.search.samplers.random_search import RandomSearch
from beats_search.search.stopping import Stopping
from beats_search.search.storage import is_disk_failure, kept

PATIENCE: Final = 5
"""After so many repeated proposals in a row they are drawn at random, until one is new."""

STALLED: Final = 60
"""So many repeated proposals in a row end a search: hardly anything can be left, and each costs a write."""


class Ending(Enum):
    """Why a search ended, as a sentence for the user."""

    TRIALS = "the budget of trials is spent"
    TIME = "the budget of time is spent"
    EXHAUSTED = "there is no plan left to try"
    STALLED = f"{STALLED} proposals in a row repeated plans that were tried already"
    INTERRUPTED = "interrupted; the same command goes on"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is searched, and how a plan is tried.

    `run_trial(number, plan, keep_going)` returns a trial's own failure as `Failed`; whatever it raises
    ends the search. `reference_point` makes the worst corner of the hypervolume from the reference.
    `known` gives what is known of a plan before training, `cost` what training it would cost, on any
    scale above 0, `query_cost` what a call of `known` costs on that scale, `decides` whether it depends on
    a knob, by path. Without `known`, nothing is foreseen, and without `stopping` no trial is stopped.
    """

    domain: Domain
    run_trial: RunTrial
    reference_point: Callable[[Finished], Mapping[str, float]]
    known: Known | None = None
    cost: Callable[[TrialPlan], float] = lambda _: 1.0
    query_cost: float = 0.0
    decides: Callable[[str], bool] = lambda _: True
    stopping: Stopping | None = None


def search(
    problem: Problem,
    ledger: Ledger,
    budget: SearchPlan,
    notify: Notify = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> Ending:
    """Run trials until a budget is spent or nothing is left to try, and return why it ended.

    What the ledger knows counts: a search goes on where it was, and with the same seed and outcomes
    it proposes the same plans, however often it was cut off. Ctrl-C is an ending like any other.
    Raises NothingFinishedError when the reference does not finish, SearchEndedError when the disk
    cannot be written; any other exception of `run_trial` passes through.
    """
    began, before = clock(), ledger.seconds
    sitting = _Sitting(
        problem=problem,
        ledger=ledger,
        budget=budget,
        sampler=plugins.make("samplers", budget.sampler),
        notify=notify,
        elapsed=lambda: before + clock() - began,
    )
    with kept(ledger.path):
        try:
            return _search(sitting)
        except KeyboardInterrupt:
            ledger.reclaim("interrupted")
            return Ending.INTERRUPTED
        except Exception as error:
            if not is_disk_failure(error):
                ledger.reclaim("crashed")
            raise


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sitting:
    """One stretch of a search in one process; `elapsed` counts the search time of all sittings."""

    problem: Problem
    ledger: Ledger
    budget: SearchPlan
    sampler: SamplerPart
    notify: Notify
    elapsed: Callable[[], float]


def _search(sitting: _Sitting) -> Ending:
    _reclaim(sitting)
    _reference(sitting)
    repeats = 0
    while (ending := _spent(sitting, repeats)) is None:
        lost = sitting.ledger.account.to_retry()
        if lost is not None:
            _run(sitting, *sitting.ledger.retry(lost))
            continue
        sampler = _next_sampler(sitting)
        if sampler is None:
            return Ending.EXHAUSTED
        repeats = 0 if _propose(sitting, sampler) else repeats + 1
    return ending


def _propose(sitting: _Sitting, sampler: BaseSampler) -> bool:
    """Let a sampler propose a plan, and run it unless it is known; tell whether it ran."""
    ledger = sitting.ledger
    trial = ledger.ask(sampler)
    plan = sitting.problem.domain.draw(Asked(trial))
    known = ledger.account.known.get(plan.fingerprint())
    if known is None:
        ledger.begin(trial, plan)
        _run(sitting, trial, plan)
        return True
    ledger.repeat(trial, known)
    sitting.notify(Repeated(number=trial.number, of=known.number))
    return False


def _reclaim(sitting: _Sitting) -> None:
    sitting.ledger.set_sampler(sitting.budget.sampler.name)
    for number in sitting.ledger.reclaim("killed"):
        sitting.notify(Reclaimed(number=number))


def _reference(sitting: _Sitting) -> None:
    """Run trial 0 unless it has finished, and note the reference point that follows from it."""
    ledger = sitting.ledger
    record = ledger.account.records.get(REFERENCE)
    if record is None or not isinstance(record.outcome, Finished):
        record = _run(sitting, ledger.ask_reference(), ledger.facts.reference)
    match record.outcome:
        case Finished() as finished if not ledger.reference_point:
            ledger.set_reference_point(sitting.problem.reference_point(finished))
        case Finished():
            pass
        case Stopped(reason=reason, epoch=epoch):
            raise NothingFinishedError(_without_reference(f"was stopped after epoch {epoch}: {reason}"))
        case Failed(stage=stage, reason=reason):
            raise NothingFinishedError(_without_reference(f"failed in stage {stage!r}: {reason}"))


def _without_reference(what: str) -> str:
    advice = "pin a smaller one with `reference:` in the space, or fix the plan; the same command tries it again"
    return f"the reference (trial 0), to which all others are compared, {what}; {advice}"


def _spent(sitting: _Sitting, repeats: int) -> Ending | None:
    """Return why no further trial begins, None when one may."""
    account, budget, count = sitting.ledger.account, sitting.budget, sitting.problem.domain.count
    if count is not None and len(account.drawn) >= count:
        return Ending.EXHAUSTED
    if len(account.records) >= budget.trials:
        return Ending.TRIALS
    if budget.timeout is not None and sitting.elapsed() >= budget.timeout:
        return Ending.TIME
    return Ending.STALLED if repeats >= STALLED else None


def _next_sampler(sitting: _Sitting) -> BaseSampler | None:
    account = sitting.ledger.account
    part = sitting.sampler if account.streak < PATIENCE else RandomSearch()
    return part.make(sitting.ledger.facts.seed, account.proposals, _foreseeing(sitting))


def _foreseeing(sitting: _Sitting) -> Domain:
    """Return the domain with what samplers may ask about a plan before it is trained."""
    problem, ledger = sitting.problem, sitting.ledger
    if problem.known is None:
        return problem.domain
    foresight = Foresight(
        objectives=ledger.facts.objectives,
        constraints=ledger.facts.constraints,
        reference_point=ledger.reference_point,
        known=problem.known,
        cost=problem.cost,
        query_cost=problem.query_cost,
        decides=problem.decides,
    )
    return replace(problem.domain, foresight=foresight)


def _run(sitting: _Sitting, trial: Trial, plan: TrialPlan) -> TrialRecord:
    sitting.notify(Began(number=trial.number, plan=plan))
    began_s, problem, ledger = sitting.elapsed(), sitting.problem, sitting.ledger
    attempted = attempt(
        lambda: ledger.run_record().as_searched(),
        trial.number,
        plan,
        problem.run_trial,
        known=problem.known,
        stopping=problem.stopping,
    )
    ledger.foresee(trial, attempted)
    outcome = _sound(attempted.outcome, ledger.facts)
    record = ledger.tell(trial, outcome, began_s=began_s, seconds=sitting.elapsed() - began_s)
    sitting.notify(Ended(record=record))
    return record


def _sound(outcome: TrialOutcome, facts: RunFacts) -> TrialOutcome:
    """Return the outcome, or a failure when a value that counts is not a finite number."""
    if isinstance(outcome, Finished):
        for name in [objective.name for objective in facts.objectives] + [limit.name for limit in facts.constraints]:
            if not math.isfinite(value := outcome.value(name)):
                return Failed(stage="measure", reason=f"{name} is {value}, which is not a finite number")
    return outcome
