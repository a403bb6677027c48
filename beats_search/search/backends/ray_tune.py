"""Ray Tune: a sitting of a search in, its trials run on a Ray cluster. The only file that knows Ray.

Tune drives: its searcher asks the sitting for jobs and tells it how they ended. A trial is one step of a class
`Trainable`, whose actor is kept for the next one. Trials are judged where they run, beside the run as a small
actor holds it, which this process keeps up to date; that actor also takes in the models. What Ray notes of its
own state goes to a folder that is deleted at the end: the study is the one source of truth.
"""

import contextlib
import json
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from threading import Lock, Timer
from typing import Any, Final, TypeAlias, final

import ray
from ray import tune
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from beats_search.records.errors import DISK_FULL, CommandError, SearchEndedError
from beats_search.records.outcome import outcome_from_plain
from beats_search.records.plain import tagged
from beats_search.records.run import RunRecord
from beats_search.search.attempt import Attempt
from beats_search.search.backends.local import Try
from beats_search.search.backends.messages import BUG, DISK, read_job, write_job
from beats_search.search.crew import Dead, Done, Job, overdue
from beats_search.search.sitting import Ending, Sitting
from beats_search.search.stopping import Stopping

Keep: TypeAlias = Callable[[int, str, bytes], None]
"""Takes in a file of a trial: its number, the file's name and what is in it."""

OpenThere: TypeAlias = Callable[[Keep], Try]
"""Called once in each process of the cluster that runs trials; it is pickled."""

_LABEL: Final = "beats-search-target"

_QUIET: Final[Mapping[str, str]] = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""What keeps Tune from writing tables and progress of its own, and from answering Ctrl-C for us."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RayTune:
    """Runs the trials of a sitting on the cluster at `address`, or on this machine where that is empty.

    Each trial takes `resources`, such as `{"CPU": 1, "GPU": 0.5}`; at most `workers` run at a time, as many as
    fit where that is None. `keep` takes in their files here. With a `target`, trials run on those nodes alone that
    were started with the label `beats-search-target=<target>`. One that takes longer than `trial_timeout` seconds
    has failed; its actor is killed, and another takes its place.
    """

    open_trials: OpenThere
    keep: Keep
    resources: Mapping[str, float]
    workers: int | None = None
    address: str = ""
    stopping: Stopping | None = None
    target: str = ""
    trial_timeout: float | None = None

    def __call__(self, sitting: Sitting) -> Ending:
        """Run trials until the sitting has no more, and return why; CommandError where there is no such cluster."""
        with _cluster(self.address), tempfile.TemporaryDirectory(prefix="beats-search-ray-") as aside:
            desk = _desk(self.keep, self.trial_timeout)
            searcher = _Asking(sitting, desk, self.trial_timeout or 0.0)
            trainable = tune.with_parameters(_Trials, open_trials=self.open_trials, desk=desk, stopping=self.stopping)
            tuner = tune.Tuner(
                tune.with_resources(trainable, self._placed()),
                tune_config=tune.TuneConfig(
                    search_alg=searcher,
                    num_samples=-1,
                    reuse_actors=True,
                    max_concurrent_trials=self._side_by_side(),
                ),
                run_config=tune.RunConfig(storage_path=aside, name="search", verbose=0, callbacks=[searcher.errors]),
            )
            tuner.fit()
            return searcher.ending()

    def _side_by_side(self) -> int:
        """Return how many trials run at a time; CommandError where no node would ever run one."""
        fit = _fitting(self.resources, self.target)
        if not fit and not self.address:  # a cluster may still grow
            wanted = ", ".join(f"{name} {amount:g}" for name, amount in self.resources.items() if amount)
            raise CommandError(f"search.resources: no trial fits on this machine, each takes {wanted}")
        return self.workers or max(1, fit)

    def _placed(self) -> tune.PlacementGroupFactory:
        """Return what a trial takes, and of which nodes."""
        chosen: dict[str, Any] = {"bundle_label_selector": [{_LABEL: self.target}]} if self.target else {}
        return tune.PlacementGroupFactory([dict(self.resources)], **chosen)


@final
class _Desk:
    """What trials of a cluster share: the run as it stands, a way for their files to its folder, and a clock."""

    def __init__(self, keep: Keep, trial_timeout: float | None) -> None:
        self._keep, self._timeout = keep, trial_timeout
        self._record: RunRecord | None = None
        self._clocks: dict[int, tuple[object, Timer]] = {}
        self._turn = Lock()
        self._overdue: set[int] = set()

    def note(self, record: RunRecord) -> None:
        """Take in the run as it stands."""
        self._record = record

    def record(self) -> RunRecord | None:
        """Return the run as it stood last."""
        return self._record

    def keep(self, number: int, name: str, data: bytes) -> None:
        """Take in a file of a trial."""
        self._keep(number, name, data)

    def began(self, number: int, actor: Any) -> None:  # noqa: ANN401 - a handle of an actor
        """Start the clock of a trial, at whose end its actor is killed, whatever that is at."""
        self.ended(number)  # an attempt whose actor died could not say so
        if self._timeout is not None:
            attempt = object()
            clock = Timer(self._timeout, self._end, [number, attempt, actor])
            self._clocks[number] = attempt, clock
            clock.start()

    def ended(self, number: int) -> None:
        """Stop the clock of a trial."""
        with self._turn:
            if found := self._clocks.pop(number, None):
                found[1].cancel()

    def was_overdue(self, number: int) -> bool:
        """Tell whether a trial was ended by its clock."""
        return number in self._overdue

    def _end(self, number: int, attempt: object, actor: Any) -> None:  # noqa: ANN401 - a handle of an actor
        with self._turn:
            if self._clocks.get(number, (None,))[0] is attempt:  # it has not ended just now
                self._overdue.add(number)
                ray.kill(actor)


@final
class _Asking(Searcher):
    """Tune's view of a sitting. What the sitting raises ends the search, and is raised anew at its end."""

    def __init__(self, sitting: Sitting, desk: Any, trial_timeout: float) -> None:  # noqa: ANN401 - an actor
        super().__init__()
        self._sitting, self._desk, self._timeout = sitting, desk, trial_timeout
        self.errors = _Errors()
        self._numbers: dict[str, int] = {}
        self._ending: Ending | None = None
        self._raised: Exception | None = None

    def suggest(self, trial_id: str) -> Any:  # noqa: ANN401 - FINISHED is a text
        """Return a job, None where an answer has to be awaited first, FINISHED when there is no more."""
        if self._raised is not None:
            return None if self._numbers else Searcher.FINISHED
        try:
            job = self._sitting.next_job()
        except Exception as error:  # noqa: BLE001 - raised anew by `ending`
            self._raised = error
            return None
        if isinstance(job, Job):
            self._numbers[trial_id] = job.number
            ray.get(self._desk.note.remote(self._sitting.run_record))
            return {"job": write_job(job).decode()}
        if isinstance(job, Ending) and not self._numbers:
            self._ending = job
            return Searcher.FINISHED
        return None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:  # noqa: FBT001, FBT002 - Ray's signature
        """Take in how a job ended; whatever Ray calls an error is a process that died."""
        number = self._numbers.pop(trial_id, None)
        if number is None or self._raised is not None:
            return
        try:
            self._sitting.settle(_done(number, result) if result and not error else self._buried(number, trial_id))
        except Exception as raised:  # noqa: BLE001 - raised anew by `ending`
            self._raised = raised

    def _buried(self, number: int, trial_id: str) -> Done | Dead:
        how = self.errors.texts.pop(trial_id, "its process ended")
        if ray.get(self._desk.was_overdue.remote(number)):
            return overdue(number, self._timeout)
        return Dead(number=number, how=how)

    def __getstate__(self) -> dict[str, object]:
        """Return nothing: Tune notes what it would need to go on, and we go on from the study."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: the study is the one source of truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""

    def ending(self) -> Ending:
        """Return why there are no more jobs; raise what ended the search otherwise."""
        if self._raised is not None:
            raise self._raised
        if self._ending is None:
            raise SearchEndedError("Ray ended the search before it was done; the same command goes on")
        return self._ending


@final
class _Errors(tune.Callback):
    """What Ray says of trials that ended in an error, by their ids."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: object) -> None:  # noqa: ANN401
        """Note the error of a trial."""
        del iteration, trials
        self.texts[trial.trial_id] = str(trial.get_error())


def _done(number: int, result: Mapping[str, Any]) -> Done:
    if result.get("raised") == DISK:
        raise SearchEndedError(result["text"])
    if result.get("raised"):
        raise RuntimeError(f"in a trial on the cluster:\n{result['text']}")
    return Done(number=number, outcome=outcome_from_plain(json.loads(result["outcome"])), spared_at=result["spared_at"])


def _full(error: OSError) -> str:
    return f"{error.strerror} on the machine of the run; the same command goes on once there is room"


@final
class _Trials(tune.Trainable):
    """A process that runs trials, one step each."""

    def setup(  # type: ignore[override] # parameters that Tune passes on
        self,
        config: dict[str, str],
        open_trials: OpenThere,
        desk: Any,  # noqa: ANN401 - a handle of an actor
        stopping: Stopping | None,
    ) -> None:
        """Get ready; called once for each process."""
        self._desk, self._stopping = desk, stopping
        self._try = open_trials(lambda number, name, data: ray.get(desk.keep.remote(number, name, data)))
        self._job = read_job(config["job"].encode())

    def reset_config(self, new_config: dict[str, str]) -> bool:
        """Take on another job in the same process."""
        self._job = read_job(new_config["job"].encode())
        return True

    def step(self) -> dict[str, Any]:
        """Run the trial."""
        job = self._job
        ray.get(self._desk.began.remote(job.number, ray.get_runtime_context().current_actor))
        try:
            attempt = Attempt(
                lambda: ray.get(self._desk.record.remote()),
                job.number,
                job.plan,
                known=lambda _: job.known,
                stopping=self._stopping if job.known else None,
            )
            attempted = attempt.ended(self._try(job, attempt.keep_going))
        except SearchEndedError as error:
            return {"done": True, "raised": DISK, "text": str(error)}
        except OSError as error:
            kind = DISK if error.errno in DISK_FULL else BUG
            return {"done": True, "raised": kind, "text": traceback.format_exc() if kind == BUG else _full(error)}
        except Exception:  # noqa: BLE001 - whatever it is, it ends the search, and is told there
            return {"done": True, "raised": BUG, "text": traceback.format_exc()}
        finally:
            ray.get(self._desk.ended.remote(job.number))
        return {"done": True, "outcome": json.dumps(tagged(attempted.outcome)), "spared_at": attempted.spared_at}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Keep nothing: what was trained is in the stage store."""


def _desk(keep: Keep, trial_timeout: float | None) -> Any:  # noqa: ANN401 - a handle of an actor
    """Return the desk, on this node, where the run's folder is."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0)(_Desk).options(scheduling_strategy=here).remote(keep, trial_timeout)


def _fitting(resources: Mapping[str, float], target: str) -> int:
    """Return how many trials fit at a time into the nodes of the cluster that may run them; CommandError for none."""
    known = ray.nodes()  # type: ignore[no-untyped-call] # has no types
    nodes = [node for node in known if node["Alive"] and target in {"", node["Labels"].get(_LABEL, "")}]
    if not nodes:
        raise CommandError(
            f"runtime.target: no node of the cluster has the label {_LABEL}={target}; "
            f"ray start --labels {_LABEL}={target} gives it one"
        )
    fit = (
        min(int(node["Resources"].get(name, 0.0) / amount) for name, amount in resources.items() if amount)
        for node in nodes
    )
    return sum(fit)


@contextlib.contextmanager
def _cluster(address: str) -> Iterator[None]:
    """Connect to a cluster, or start one on this machine, and leave it in the end."""
    os.environ.update({name: value for name, value in _QUIET.items() if name not in os.environ})
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a trial that died is told as a trial that died
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}},
        )
    except (ConnectionError, ValueError) as error:
        raise CommandError(f"search.ray.address {address!r}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()
