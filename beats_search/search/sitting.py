"""Sitting: a problem and a ledger in, the next job, or why there is none, out; and what became of jobs in again.

Nothing here waits or runs a trial: who tries plans asks for jobs, lets trials be judged, and tells how they ended.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, final

from optuna import Trial
from optuna.samplers import BaseSampler

from beats_search import plugins
from beats_search.records.errors import NothingFinishedError
from beats_search.records.event import Began, Ended, Notify, Reclaimed, Repeated
from beats_search.records.outcome import EpochScore, Failed, Finished, Stopped, TrialOutcome
from beats_search.records.plan import TrialPlan
from beats_search.records.run import REFERENCE, RunRecord, TrialRecord
from beats_search.records.search_plan import SearchPlan
from beats_search.search.attempt import Attempt, Attempted, Known, RunTrial
from beats_search.search.crew import Dead, Done, Job
from beats_search.search.domain import Domain
from beats_search.search.foresight import Foresight
from beats_search.search.ledger import Ledger
from beats_search.search.proposal import Asked, SamplerPart
from beats_search.search.reading import RunFacts
from beats_search.search.samplers.random_search import RandomSearch
from beats_search.search.stopping import Stopping

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _UnderWay:
    trial: Trial
    plan: TrialPlan
    attempt: Attempt
    began_s: float


@final
class Sitting:
    """One stretch of a search in one process; `elapsed` counts the search time of all of them.

    What the ledger knows counts: with the same seed and outcomes, and one job at a time, the same plans
    are proposed, however often a search was cut off.
    """

    def __init__(
        self, problem: Problem, ledger: Ledger, budget: SearchPlan, notify: Notify, elapsed: Callable[[], float]
    ) -> None:
        """Note the sampler, and settle what a process that died has left."""
        self._problem, self._ledger, self._budget = problem, ledger, budget
        self._notify, self._elapsed = notify, elapsed
        self._sampler: SamplerPart = plugins.make("samplers", budget.sampler)
        self._under_way: dict[int, _UnderWay] = {}
        self._waiting: defaultdict[int, list[Trial]] = defaultdict(list)
        self._repeats = 0
        ledger.set_sampler(budget.sampler.name)
        for number in ledger.reclaim("killed", self._attempts):
            notify(Reclaimed(number=number))
        self._answered = set(ledger.account.records)

    def next_job(self) -> Job | Ending | None:
        """Return what to try next, why nothing more is tried, or None where an answer has to be awaited first."""
        ledger = self._ledger
        self._catch_up()
        if not isinstance(reference := _outcome(ledger.account.records.get(REFERENCE)), Finished):
            trial = None if self._under_way else ledger.ask_reference()
            return None if trial is None else self._begun(trial, ledger.facts.reference)
        self._refer(reference)
        while (ending := self._spent()) is None and not self._is_full():
            lost = ledger.account.to_retry()
            found = self._begun(*ledger.retry(lost)) if lost else self._proposed()
            if found is not None:
                return found
        return None if ending is Ending.EXHAUSTED and self._others_are_at_work() else ending

    def judge(self, number: int, score: EpochScore) -> bool:
        """Tell after an epoch of a trial whether it goes on."""
        return self._under_way[number].attempt.keep_going(score)

    def settle(self, found: Done | Dead) -> None:
        """Take in how a job ended. One whose process died comes again, as often as the budget says.

        Raises NothingFinishedError when the reference has ended without a result.
        """
        under_way = self._under_way.pop(found.number)
        match found:
            case Done(outcome=outcome, spared_at=spared_at):
                attempted = under_way.attempt.ended(outcome)
                self._tell(under_way, replace(attempted, spared_at=attempted.spared_at or spared_at))
            case Dead(how=how):
                self._lose(under_way, how)

    def _catch_up(self) -> None:
        """Take in what other machines have done, and take up what those that vanished have left."""
        for number in self._ledger.take_over(self._attempts):
            self._notify(Reclaimed(number=number))
        self._ledger.refresh()
        records = self._ledger.account.records
        if len(records) > len(self._answered):
            for number in sorted(records.keys() - self._answered):
                self._answer(records[number])

    @property
    def _attempts(self) -> int:
        return 1 + self._budget.retries

    def _spent(self) -> Ending | None:
        """Return why no further trial begins, None when one may."""
        account, budget, count = self._ledger.account, self._budget, self._problem.domain.count
        if count is not None and len(account.drawn | set(self._plans_under_way())) >= count:
            return Ending.EXHAUSTED
        if len(account.records) >= budget.trials:
            return Ending.TRIALS
        if budget.timeout is not None and self._elapsed() >= budget.timeout:
            return Ending.TIME
        return Ending.STALLED if self._repeats >= STALLED else None

    def _others_are_at_work(self) -> bool:
        """Tell whether other machines have trials under way, which may come to be this one's."""
        return not set(self._plans_under_way().values()) <= self._under_way.keys()

    def _is_full(self) -> bool:
        """Tell whether the budget of trials is spent once those under way have ended."""
        return len(self._ledger.account.records) + len(self._plans_under_way()) >= self._budget.trials

    def _plans_under_way(self) -> Mapping[str, int]:
        """Return the numbers of the trials under way by the fingerprints of their plans, the reference's apart."""
        own = {each.plan.fingerprint(): number for number, each in self._under_way.items() if number != REFERENCE}
        ended = self._ledger.account.records
        return {plan: number for plan, number in self._ledger.elsewhere.items() if number not in ended} | own

    def _proposed(self) -> Job | Ending | None:
        """Let a sampler propose a plan and begin it, None when it is known or under way already."""
        ledger, sampler = self._ledger, self._next_sampler()
        if sampler is None:
            return Ending.EXHAUSTED
        trial = ledger.ask(sampler)
        plan = self._problem.domain.draw(Asked(trial))
        known = ledger.account.known.get(plan.fingerprint())
        twin = self._plans_under_way().get(plan.fingerprint())
        if known is not None:
            self._repeat(trial, known)
        elif (twin := twin if twin is not None else ledger.begin(trial, plan)) is not None:
            ledger.defer(trial, twin)
            self._waiting[twin].append(trial)
        else:
            self._repeats = 0
            return self._begun(trial, plan)
        self._repeats += 1
        return None

    def _next_sampler(self) -> BaseSampler | None:
        account = self._ledger.account
        part = self._sampler if account.streak < PATIENCE else RandomSearch()
        return part.make(self._ledger.facts.seed, account.proposals, self._foreseeing())

    def _foreseeing(self) -> Domain:
        """Return the domain with what samplers may ask about a plan before it is trained."""
        problem, ledger = self._problem, self._ledger
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

    def _begun(self, trial: Trial, plan: TrialPlan) -> Job | None:
        """Return the job of a trial; None where what is known before training refuses it."""
        ledger, problem = self._ledger, self._problem
        self._notify(Began(number=trial.number, plan=plan))
        began_s = self._elapsed()
        attempt = Attempt(lambda: self.run_record, trial.number, plan, known=problem.known, stopping=problem.stopping)
        under_way = _UnderWay(trial=trial, plan=plan, attempt=attempt, began_s=began_s)
        if attempt.refused is not None:
            self._tell(under_way, attempt.ended(attempt.refused))
            return None
        self._under_way[trial.number] = under_way
        reference = _outcome(ledger.account.records.get(REFERENCE))
        median_ms = reference.latency.median_ms if isinstance(reference, Finished) else None
        return Job(number=trial.number, plan=plan, reference_ms=median_ms, known=attempt.known)

    @property
    def run_record(self) -> RunRecord:
        """Return the run as it stands, with the latencies that the search knows."""
        return self._ledger.run_record().as_searched()

    def _tell(self, under_way: _UnderWay, attempted: Attempted) -> None:
        trial, ledger = under_way.trial, self._ledger
        if not ledger.holds(trial):
            return
        ledger.foresee(trial, attempted)
        outcome, began_s = _sound(attempted.outcome, ledger.facts), under_way.began_s
        self._answer(ledger.tell(trial, outcome, began_s=began_s, seconds=self._elapsed() - began_s))

    def _lose(self, under_way: _UnderWay, how: str) -> None:
        if not self._ledger.holds(under_way.trial):
            return
        failed = self._ledger.lose(under_way.trial, "killed", self._attempts, how)
        if failed is None:
            self._notify(Reclaimed(number=under_way.trial.number))
        else:
            self._answer(failed)

    def _answer(self, record: TrialRecord) -> None:
        """Let others know a trial that has ended: the proposals of the same plan, and whoever watches."""
        self._answered.add(record.number)
        if record.number == REFERENCE:
            self._refer(record.outcome)
        self._notify(Ended(record=record))
        for trial in self._waiting.pop(record.number, []):
            self._repeat(trial, record)
        if record.number == REFERENCE and not isinstance(record.outcome, Finished):
            raise NothingFinishedError(_without_reference(record.outcome))

    def _refer(self, outcome: TrialOutcome) -> None:
        """Note the reference point that follows from the reference, unless that is noted."""
        if isinstance(outcome, Finished) and not self._ledger.reference_point:
            self._ledger.set_reference_point(self._problem.reference_point(outcome))

    def _repeat(self, trial: Trial, known: TrialRecord) -> None:
        self._ledger.repeat(trial, known)
        self._notify(Repeated(number=trial.number, of=known.number))


def _outcome(record: TrialRecord | None) -> TrialOutcome | None:
    return None if record is None else record.outcome


def _without_reference(outcome: Stopped | Failed) -> str:
    match outcome:
        case Stopped(reason=reason, epoch=epoch):
            what = f"was stopped after epoch {epoch}: {reason}"
        case Failed(stage=stage, reason=reason):
            what = f"failed in stage {stage!r}: {reason}"
    advice = "pin a smaller one with `reference:` in the space, or fix the plan; the same command tries it again"
    return f"the reference (trial 0), to which all others are compared, {what}; {advice}"


def _sound(outcome: TrialOutcome, facts: RunFacts) -> TrialOutcome:
    """Return the outcome, or a failure when a value that counts is not a finite number."""
    if isinstance(outcome, Finished):
        for name in [objective.name for objective in facts.objectives] + [limit.name for limit in facts.constraints]:
            if not math.isfinite(value := outcome.value(name)):
                return Failed(stage="measure", reason=f"{name} is {value}, which is not a finite number")
    return outcome
