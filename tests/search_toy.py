"""A search space, outcomes and a run that cost nothing, for the tests of the search."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from beats_search.records.event import Event
from beats_search.records.objective import Constraint, Objective
from beats_search.records.outcome import Failed, Finished, Footprint, Interval, Latency, Stopped, TrialOutcome
from beats_search.records.part import Part, Scalar
from beats_search.records.plan import TrainingPlan, TrialPlan
from beats_search.records.search_plan import SearchPlan
from beats_search.search.attempt import KeepGoing, RunTrial
from beats_search.search.domain import Domain, domain_of
from beats_search.search.foresight import Foresight
from beats_search.search.ledger import Ledger
from beats_search.search.reading import RunFacts, read_run
from beats_search.search.sitting import Ending, Problem
from beats_search.search.study import search
from beats_search.space.knobs import Block, Choice, Items, Leaf, PartNode, Range, SearchSpace

OBJECTIVES = (
    Objective(name="accuracy", direction="maximize"),
    Objective(name="latency_ms", direction="minimize"),
)
LIMIT = Constraint(name="size_kb", sign="<=", bound=60.0)
REFERENCE = TrialPlan(dataset=Part(name="toy"), model=Part(name="toy"), training=TrainingPlan(epochs=1))


def space(*, continuous: bool = True, epochs: int = 1) -> SearchSpace:
    """Return a space with a conditional knob and a choice of one; finite (12 plans) unless it is continuous."""
    width = Choice(path="model.width", labels=(8, 16, 32), options=(Leaf(value=8), Leaf(value=16), Leaf(value=32)))
    gamma = Range(path="training.schedule.step.gamma", low=0.1, high=0.5, step=0.2)
    schedule = Choice(
        path="training.schedule",
        labels=("constant", "step"),
        options=(
            PartNode(shelf="schedules", name="constant", fields=()),
            PartNode(shelf="schedules", name="step", fields=(("gamma", gamma),)),
        ),
    )
    ratio = Choice(path="compression.0.ratio", labels=(0.5,), options=(Leaf(value=0.5),))
    lr = Range(path="training.lr", low=0.001, high=1.0, log=True) if continuous else Leaf(value=0.1)
    schedules = (("schedule", schedule),)
    training = Block(record=TrainingPlan, fields=(("epochs", Leaf(value=epochs)), ("lr", lr), *schedules))
    pruning = PartNode(shelf="compression", name="channel_pruning", fields=(("ratio", ratio),))
    plan = Block(
        record=TrialPlan,
        fields=(
            ("dataset", PartNode(shelf="datasets", name="toy", fields=())),
            ("model", PartNode(shelf="models", name="toy", fields=(("width", width),))),
            ("training", training),
            ("compression", Items(items=(pruning,))),
        ),
    )
    return SearchSpace(
        name="toy",
        seed=0,
        plan=plan,
        objectives=OBJECTIVES,
        constraints=(LIMIT,),
        reference={},
        search=SearchPlan(),
        file="toy.yaml",
        text="name: toy",
    )


def domain(*, continuous: bool = True) -> Domain:
    """Return what may be proposed from the toy space."""
    return domain_of(space(continuous=continuous))


def foreseeing(usual: Mapping[str, Scalar], constraints: tuple[Constraint, ...] = ()) -> Domain:
    """Return the toy domain where widths alone decide latency, and the reference has these values."""
    foresight = Foresight(
        objectives=OBJECTIVES,
        constraints=constraints,
        reference_point={"accuracy": 0.1, "latency_ms": 4.4},
        known=lambda plan: {"latency_ms": float(str(plan.model["width"])) / 8},
        cost=lambda _: 1.0,
        decides=lambda path: path.startswith("model."),
    )
    return replace(domain(), foresight=foresight, usual=usual)


def facts(seed: int = 0, reference: TrialPlan = REFERENCE) -> RunFacts:
    """Return the facts of a toy run."""
    return RunFacts(
        name="toy",
        seed=seed,
        space_text="name: toy",
        space_file="/somewhere/toy.yaml",
        space_canonical="{}",
        objectives=OBJECTIVES,
        constraints=(LIMIT,),
        reference=reference,
        environment={"python": "3"},
        classes=("a", "b"),
        input_shape=(1, 2, 2),
    )


def finished(accuracy: float, latency_ms: float, size_kb: float = 50.0) -> Finished:
    """Return a finished outcome with these values."""
    return Finished(
        accuracy=accuracy,
        accuracy_interval=Interval(low=0.0, high=1.0),
        latency=Latency(
            median_ms=latency_ms,
            interval_ms=Interval(low=0.0, high=100.0),
            ratio=1.0,
            ratio_interval=Interval(low=0.9, high=1.1),
            raw_median_ms=latency_ms,
            blocks=1,
            calls=1,
            settled=True,
        ),
        footprint=Footprint(size_kb=size_kb, parameters=1, macs=1),
        executed_as="fp32",
        sha256="",
        curve=(),
        stage_seconds={},
    )


def outcome_of(plan: TrialPlan) -> TrialOutcome:
    """Return an outcome that depends on the plan alone: mostly finished, sometimes stopped, failed or too large."""
    if plan == REFERENCE:
        return finished(0.9, 4.0)
    width, lr = float(str(plan.model["width"])), plan.training.lr
    if lr > 0.5:
        return Failed(stage="train", reason="diverged")
    if lr < 0.002:
        return Stopped(epoch=1, reason="hopeless", curve=())
    gain = dict(plan.training.schedule.settings).get("gamma", 0.0)
    accuracy = 0.4 + width / 100 + float(str(gain)) / 10 - abs(lr - 0.05) / 2
    return finished(accuracy, width / 8, size_kb=2.0 * width)


class Trials:
    """A `run_trial` that counts, and may be told what to do instead at its n-th call (1, 2, …)."""

    def __init__(self, instead: Mapping[int, Callable[[], object]] | None = None) -> None:
        """Begin at no calls."""
        self.plans: list[TrialPlan] = []
        self._instead = instead or {}

    def __call__(self, number: int, plan: TrialPlan, keep_going: KeepGoing) -> TrialOutcome:
        """Run one trial."""
        del number, keep_going
        self.plans.append(plan)
        self._instead.get(len(self.plans), lambda: None)()
        return outcome_of(plan)


class Death(BaseException):
    """Ends a search at once: no handler of the package knows it."""


def die() -> None:
    """End the process, as far as a test in the same process can."""
    raise Death


def interrupt() -> None:
    """Press Ctrl-C."""
    raise KeyboardInterrupt


def problem(trials: RunTrial, *, continuous: bool = True) -> Problem:
    """Return the toy problem."""
    return Problem(
        domain=domain(continuous=continuous),
        run_trial=trials,
        reference_point=lambda reference: {"accuracy": 0.1, "latency_ms": 1.1 * reference.latency.median_ms},
    )


def budget(trials: int, sampler: str = "random_search", *, timeout: float | None = None, **settings: int) -> SearchPlan:
    """Return a budget and a sampler."""
    part = Part(name=sampler, settings=tuple(settings.items()))
    return SearchPlan(trials=trials, timeout=timeout, sampler=part)


def new_ledger(path: Path, seed: int = 0) -> Ledger:
    """Return a new ledger at `path`, copied from one that was created once, because that takes half a second."""
    path.write_bytes(_template(seed))
    return Ledger.open(path)


@lru_cache
def _template(seed: int) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "study.db"
        Ledger.create(path, facts(seed)).close()
        return path.read_bytes()


def plans_of(path: Path) -> list[TrialPlan]:
    """Return the plans that ran, in the order of their numbers."""
    return [trial.plan for trial in read_run(path).trials]


def sit(
    path: Path, plan: SearchPlan, trials: Trials | None = None, *, continuous: bool = True, seed: int = 0
) -> tuple[Ending, Sequence[Event]]:
    """Search in a file, new or not, and return how it ended and all events."""
    events: list[Event] = []
    with Ledger.open(path) if path.exists() else new_ledger(path, seed) as ledger:
        ending = search(problem(trials or Trials(), continuous=continuous), ledger, plan, events.append)
    return ending, events
