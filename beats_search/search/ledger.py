"""Ledger: proposals and outcomes in, an Optuna study on disk out, or in a database that several machines share.

The study is the one source of truth: to go on, to show and to report a run need nothing else.
A write is several small transactions, in an order that leaves nothing half told after a kill.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Self, final

import optuna
from optuna import Study, Trial
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from beats_search.records.errors import CommandError
from beats_search.records.outcome import Failed, Finished, Latency, Stopped, TrialOutcome, outcome_from_plain
from beats_search.records.plain import tagged, to_plain
from beats_search.records.plan import TrialPlan
from beats_search.records.run import REFERENCE, Confirmation, RunRecord, TrialRecord
from beats_search.search.account import Account, Loss, Lost, plan_of, read_account, record_of
from beats_search.search.attempt import Attempted
from beats_search.search.handover import Handover
from beats_search.search.leases import Leases, SoleLeases
from beats_search.search.lock import Lock
from beats_search.search.reading import MARK, SCHEMA, RunFacts, read_study, run_record
from beats_search.search.storage import (
    closing_storage,
    create_storage,
    journalled,
    kept,
    open_storage,
    without_experimental_warnings,
)


@final
class Ledger:
    """The study of one run. A context manager, which closes at its end what it is given as `closing`.

    `where` says in messages where the study is. `facts` never change; `account` is what is known so far, and
    `elsewhere` the numbers of the trials that other processes have under way, by the fingerprints of their plans.
    This process writes only trials that it holds: all of them, unless `leases` are shared; then `handover` brings
    the files of trials to other machines.
    """

    def __init__(
        self, where: str, study: Study, facts: RunFacts, account: Account, leases: Leases, closing: ExitStack
    ) -> None:
        """Hold an open study; `create`, `open` and `open_shared` make ledgers."""
        self.where = where
        self.facts = facts
        self.account = account
        self.elsewhere: Mapping[str, int] = {}
        self.handover: Handover | None = None
        self._study = study
        self._leases = leases
        self._closing = closing

    @classmethod
    def create(cls, path: Path, facts: RunFacts) -> Self:
        """Start a study in a new file at `path`; CommandError when there is one, or the folder is in use."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.callback(Lock(path.with_suffix(".lock")).release)
            if path.exists():
                raise CommandError(f"{path}: there is a run here already")
            _write_new(path, facts)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the study at `path`; CommandError when it is none of ours, damaged, or in use."""
        if not path.is_file():
            raise CommandError(f"{path}: there is no run here")
        with ExitStack() as stack:
            stack.callback(Lock(path.with_suffix(".lock")).release)
            storage = stack.enter_context(closing_storage(open_storage(path)))
            study = read_study(str(path), storage)
            stack.enter_context(journalled(storage))
            return cls(str(path), *study, SoleLeases(), stack.pop_all())

    def close(self) -> None:
        """Close the file and let others write it."""
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def seconds(self) -> float:
        """Search time spent so far."""
        return max((record.began_s + record.seconds for record in self.account.records.values()), default=0.0)

    @property
    def reference_point(self) -> Mapping[str, float]:
        """The worst corner of the hypervolume by objective name; empty until it has been noted."""
        return dict(self._study.user_attrs.get("reference_point", {}))

    def run_record(self) -> RunRecord:
        """Return the run as it stands."""
        return run_record(self._study, self.facts, self.account)

    def set_sampler(self, name: str) -> None:
        """Note the sampler of this sitting."""
        self._study.set_user_attr("sampler", name)

    def set_reference_point(self, point: Mapping[str, float]) -> None:
        """Note the worst corner of the hypervolume, by objective name."""
        self._study.set_user_attr("reference_point", dict(point))

    def set_test_accuracy(self, shares: Mapping[int, float]) -> None:
        """Note the accuracy on the test split by trial number."""
        with kept(self.where):
            self._study.set_user_attr("test_accuracy", {str(number): share for number, share in shares.items()})

    def set_final_latencies(self, latencies: Mapping[int, Latency]) -> None:
        """Note the latencies of the trials that were timed once more, by number, in place of all noted before.

        That of the reference sets the scale on which all are read from now on; the search keeps its own.
        """
        plain = {str(number): to_plain(latency) for number, latency in latencies.items()}
        with kept(self.where):
            self._study.set_user_attr("final_latency", plain)

    def set_confirmed(self, found: Mapping[int, Confirmation]) -> None:
        """Note what plans reached with other seeds, by trial number, in place of all noted before."""
        with kept(self.where):
            self._study.set_user_attr("confirmed", {str(number): to_plain(told) for number, told in found.items()})

    def refresh(self) -> None:
        """Take in what other processes have noted since."""
        if self._leases.shared:
            self._read(self._study.get_trials(deepcopy=False))

    def ask_reference(self) -> Trial | None:
        """Return trial 0 as one that runs; None while another process tries it.

        It stays open until it has finished, however often it is tried.
        """
        trials = self._study.get_trials(deepcopy=False)
        trial = self._reopened(trials[REFERENCE]) if trials else self._study.ask()
        if not self._leases.adopt(_id(trial)):
            return None
        trial.set_user_attr("plan", to_plain(self.facts.reference))
        trial.set_user_attr("running", True)  # noqa: FBT003 - Optuna's signature
        return trial

    def ask(self, sampler: BaseSampler) -> Trial:
        """Return a new trial whose values `sampler` proposes."""
        self._study.sampler = sampler
        trial = self._study.ask()
        self._leases.take(_id(trial), trial.number)
        return trial

    def begin(self, trial: Trial, plan: TrialPlan) -> int | None:
        """Note that a trial begins to run, so that its plan survives the process.

        Returns the number of the trial that has the same plan where another process has begun it just before.
        """
        twin = self._leases.claim(_id(trial), plan.fingerprint())
        if twin is None:
            trial.set_user_attr("plan", to_plain(plan))
            self.account.proposed()
        return twin

    def holds(self, trial: Trial) -> bool:
        """Tell whether a trial is still this process's to end: others take over those of one that seemed dead."""
        return self._leases.holds(_id(trial))

    def retry(self, lost: Lost) -> tuple[Trial, TrialPlan]:
        """Begin another attempt at a lost trial and return it with its plan; it keeps its number."""
        trial = self._reopened(self._study.get_trials(deepcopy=False)[lost.number])
        trial.set_user_attr("lost", None)
        self.account.lost.remove(lost)
        return trial, plan_of(trial)

    def foresee(self, trial: Trial, attempted: Attempted) -> None:
        """Note what was known of a trial before it was trained, and whether it was spared."""
        if attempted.known:
            trial.set_user_attr("known", dict(attempted.known))
        if attempted.spared_at is not None:
            trial.set_user_attr("spared_at", attempted.spared_at)

    def tell(self, trial: Trial, outcome: TrialOutcome, *, began_s: float, seconds: float) -> TrialRecord:
        """Note how a trial ended and return it as a record. The outcome is written before the state."""
        trial.set_user_attr("began_s", began_s)
        trial.set_user_attr("seconds", seconds)
        trial.set_user_attr("outcome", tagged(outcome))
        record = record_of(trial)
        self.account.ran(record)
        self._finish(trial, outcome)
        return record

    def defer(self, trial: Trial, of: int) -> None:
        """Note that a proposal has the plan of trial `of`, which is still under way; `repeat` answers it."""
        trial.set_user_attr("duplicate_of", of)
        self.account.proposed()
        self.account.streak += 1

    def repeat(self, trial: Trial, known: TrialRecord) -> None:
        """Answer a proposal from a trial with the same plan."""
        if "duplicate_of" not in trial.user_attrs:
            trial.set_user_attr("duplicate_of", known.number)
            self.account.proposed()
            self.account.streak += 1
        self.account.repeated(known.number)
        self._finish(trial, known.outcome)

    def reclaim(self, loss: Loss, attempts: int) -> tuple[int, ...]:
        """Settle every trial that is left running and return the numbers of those whose plan was cut off.

        What had an answer gets it; a plan that was cut off stays open, to be tried again; a proposal
        that had not become a plan is void. One during which the process ended in all `attempts` has failed;
        else it would end every sitting to come. What other processes hold is left to them.
        """
        running = self._running()
        cut_off = tuple(trial.number for trial in running if self._reclaim(self._reopened(trial), loss, attempts))
        for trial in running:
            if trial.number in cut_off:
                self._leases.release(_id(trial))
        self._read(self._study.get_trials(deepcopy=False))
        return cut_off

    def take_over(self, attempts: int) -> tuple[int, ...]:
        """Hold and settle the trials of processes that have vanished; return the numbers of those to be tried again."""
        vanished = set(self._leases.vanished())
        if not vanished:
            return ()
        trials = [trial for trial in self._study.get_trials(deepcopy=False) if _id(trial) in vanished]
        taken = [trial for trial in trials if trial.number != REFERENCE and self._leases.adopt(_id(trial))]
        for trial in taken:
            if trial.state.is_finished():
                self._leases.end(_id(trial))
            elif trial.user_attrs.get("lost"):
                self.account.lost.append(Lost(number=trial.number, loss=trial.user_attrs["lost"]))
            else:
                self._reclaim(self._reopened(trial), "killed", attempts)
        return tuple(trial.number for trial in taken if any(trial.number == lost.number for lost in self.account.lost))

    def lose(self, trial: Trial, loss: Loss, attempts: int, how: str) -> TrialRecord | None:
        """Note that a trial's process ended before it did; return the failure that it is after so many attempts."""
        deaths = trial.user_attrs.get("deaths", 0) + (loss != "interrupted")
        trial.set_user_attr("deaths", deaths)
        if deaths >= attempts and loss != "interrupted":
            reason = f"the process ended {deaths} times while this plan ran" if deaths > 1 else "its process ended"
            failed = Failed(stage="process", reason=reason, detail=how)
            return self.tell(trial, failed, began_s=self.seconds, seconds=0.0)
        if trial.number != REFERENCE:
            trial.set_user_attr("lost", loss)
            self.account.lost.append(Lost(number=trial.number, loss=loss))
        return None

    def _running(self) -> list[FrozenTrial]:
        """Return the trials that run and that this process holds."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial for trial in running if self._leases.holds(_id(trial))]

    def _read(self, trials: Sequence[FrozenTrial]) -> None:
        """Take in the trials as they stand."""
        lost = {each.number for each in self.account.lost}
        settled = self.account.records
        if REFERENCE in settled and not isinstance(settled[REFERENCE].outcome, Finished):
            settled = {}  # it may have been tried again
        self.account = read_account(trials, settled)
        if self._leases.shared:
            self.account.lost = [each for each in self.account.lost if each.number in lost]
            self.elsewhere = {
                plan_of(trial).fingerprint(): trial.number
                for trial in trials
                if trial.state is TrialState.RUNNING
                and "plan" in trial.user_attrs
                and trial.number not in {REFERENCE, *lost}
            }

    def _reclaim(self, trial: Trial, loss: Loss, attempts: int) -> bool:
        """Close one trial; tell whether a plan was cut off."""
        carried = trial.user_attrs
        if trial.number == REFERENCE:
            return self._reclaim_reference(trial)
        if "outcome" in carried:
            self._finish(trial, outcome_from_plain(carried["outcome"]))
        elif carried.get("duplicate_of") in self.account.records:
            self._finish(trial, self.account.records[carried["duplicate_of"]].outcome)
        elif carried.get("lost"):
            return False
        elif "plan" in carried:
            self.lose(trial, loss, attempts, loss)
            return True
        else:
            self._study.tell(trial, state=TrialState.FAIL)
            self._leases.end(_id(trial), void=True)
        return False

    def _reclaim_reference(self, trial: Trial) -> bool:
        was_running = bool(trial.user_attrs.get("running"))
        trial.set_user_attr("running", False)  # noqa: FBT003 - Optuna's signature
        if "outcome" in trial.user_attrs:
            self._finish(trial, outcome_from_plain(trial.user_attrs["outcome"]))
        return was_running

    def _constrain(self, trial: Trial, outcome: Finished) -> None:
        """Note by how much limits are broken; a process that was killed may have noted some."""
        for constraint in self.facts.constraints:
            if str(constraint) not in trial.constraints:
                trial.set_constraint(str(constraint), constraint.violation(outcome))

    def _finish(self, trial: Trial, outcome: TrialOutcome) -> None:
        """Tell Optuna the state, last of all.

        Samplers never see the reference, for it is told as FAIL: it has no values for the knobs, and
        one completed trial without them would leave most samplers without a space they can model.
        """
        if trial.number == REFERENCE:
            trial.set_user_attr("running", False)  # noqa: FBT003 - Optuna's signature
            if not isinstance(outcome, Finished):
                self._leases.release(_id(trial))
                return
            self._study.tell(trial, state=TrialState.FAIL)
            self._leases.end(_id(trial))
            return
        match outcome:
            case Finished():
                self._constrain(trial, outcome)
                values = [outcome.value(objective.name) for objective in self.facts.objectives]
                self._study.tell(trial, values, TrialState.COMPLETE)
            case Stopped():
                self._study.tell(trial, state=TrialState.PRUNED)
            case Failed():
                self._study.tell(trial, state=TrialState.FAIL)
        self._leases.end(_id(trial))

    def _reopened(self, trial: FrozenTrial) -> Trial:
        self._study.sampler = RandomSampler()  # a trial that is opened asks the sampler, whatever it knows already
        return Trial(self._study, _id(trial))


def write_facts(storage: RDBStorage, facts: RunFacts) -> Study:
    """Begin a study of ours in a storage, without trials."""
    directions = [objective.direction for objective in facts.objectives]
    study = optuna.create_study(storage=storage, study_name=facts.name, directions=directions, sampler=RandomSampler())
    with without_experimental_warnings():
        study.set_metric_names([objective.name for objective in facts.objectives])
    for field in fields(facts):
        study.set_user_attr(field.name, to_plain(getattr(facts, field.name)))
    study.set_user_attr(MARK, SCHEMA)
    return study


def _id(trial: Trial | FrozenTrial) -> int:
    return trial._trial_id  # noqa: SLF001 - Optuna tells it nowhere else


def _write_new(path: Path, facts: RunFacts) -> None:
    """Write the study aside and move it into place whole."""
    aside = path.with_suffix(".new")
    aside.unlink(missing_ok=True)
    with kept(str(path)), closing_storage(create_storage(aside)) as storage:
        write_facts(storage, facts)
    aside.rename(path)
