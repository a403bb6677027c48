"""Working: a space and its reference in, what tries its plans out, in this process or in others."""

import atexit
import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from beats_search.app.problem import depot_address, store_of
from beats_search.records.outcome import Finished, TrialOutcome
from beats_search.records.plan import TrialPlan
from beats_search.search.folder import model_file

if TYPE_CHECKING:
    from beats_search.measuring.energy import EnergyCounters
    from beats_search.measuring.quiet import QuietWindow
    from beats_search.records.search_plan import SearchPlan
    from beats_search.search.attempt import KeepGoing
    from beats_search.search.backends.local import Try
    from beats_search.search.backends.warm import Beginning
    from beats_search.search.crew import Job
    from beats_search.search.sitting import Problem
    from beats_search.search.study import Drive
    from beats_search.space.knobs import SearchSpace
    from beats_search.trial.run import Instruments, Reference

STORE_BYTES: Final = 4_000_000_000
"""The most that is kept of trainings; what was used longest ago goes first."""

_ROOM_BYTES: Final = 1_500_000_000
"""What a worker takes of the memory at least, with all that it imports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """All that another process needs to try plans of a space: plain data, which can be sent.

    `reference` is the plan that latencies are paired with, `paired` its untrained file. Trainings are kept
    in `store`, if anywhere, and at the address `depot`; with `energy` the machine's counters are read.
    Only machines of the kind `target`, if that is not empty, may measure. In `shared` the processes of one
    machine tell each other what they have exported and timed.
    """

    folder: Path
    reference: TrialPlan
    paired: Path
    reuse: bool
    store: Path | None
    energy: bool
    depot: str = ""
    target: str = ""
    shared: Path | None = None

    def __call__(self) -> "Try":
        """Return what tries plans in this process."""
        import numpy as np

        from beats_search.measuring.energy import find_counters
        from beats_search.measuring.quiet import window_of_machine
        from beats_search.tensors.shelf import share_in
        from beats_search.training.devices import use_threads
        from beats_search.trial.recipe import runtime_of
        from beats_search.trial.run import Reference, run_trial

        np.random.seed()  # noqa: NPY002 - the user's code may use it, and forks of one process would draw alike
        share_in(self.shared)
        use_threads(os.environ.get("OMP_NUM_THREADS", ""))
        tools = instruments(
            window_of_machine(),
            reuse=self.reuse,
            store=self.store,
            counters=find_counters() if self.energy else None,
            depot=self.depot,
        )
        paired = Reference(open=runtime_of(self.reference).load(self.paired).open)

        def try_plan(job: "Job", keep_going: "KeepGoing") -> TrialOutcome:
            on_scale = replace(paired, median_ms=job.reference_ms)
            return run_trial(job.plan, model_file(self.folder, job.number).parent, on_scale, keep_going, tools)

        return try_plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A workplace on another machine: it has a folder of its own, and sends the models to where the run is.

    `paired` is the file that latencies are paired with, by its name and what is in it.
    """

    place: Workplace
    paired: tuple[str, bytes]

    def __call__(self, keep: Callable[[int, str, bytes], None]) -> "Try":
        """Return what tries plans in this process and gives their models to `keep`."""
        own = Path(tempfile.mkdtemp(prefix="beats-search-"))
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        name, data = self.paired
        (own / name).write_bytes(data)
        try_plan = replace(self.place, folder=own, paired=own / name, shared=None)()

        def try_and_send(job: "Job", keep_going: "KeepGoing") -> TrialOutcome:
            outcome = try_plan(job, keep_going)
            if isinstance(outcome, Finished):
                made = model_file(own, job.number).parent
                keep(job.number, outcome.model_file, (made / outcome.model_file).read_bytes())
                shutil.rmtree(made)
            return outcome

        return try_and_send


def keep_model(folder: Path, number: int, name: str, data: bytes) -> None:
    """Write the model of a trial that was run elsewhere into the run's folder."""
    path = model_file(folder, number).with_name(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{name}.{os.getpid()}")
    aside.write_bytes(data)
    aside.replace(path)


Hire: TypeAlias = Callable[["Problem", Workplace, "SearchPlan"], "Drive"]
"""Returns what lets somebody run the trials of a problem."""


def workplace_of(space: "SearchSpace", folder: Path, reference: TrialPlan, paired: "Reference") -> Workplace:
    """Return what processes need to try plans of a space whose run is in `folder`."""
    counting = [goal.name for goal in space.objectives] + [limit.name for limit in space.constraints]
    return Workplace(
        folder=folder.resolve(),
        reference=reference,
        paired=paired.file,
        reuse=space.search.reuse,
        store=store_of(space),
        energy="energy_mj" in counting,
        depot=depot_address(),
        target=space.target,
        shared=paired.file.parent,
    )


def spawned(context: "Callable[[], Beginning]", problem: "Problem", place: Workplace, budget: "SearchPlan") -> "Drive":
    """Let processes of this machine run trials, as many as the budget says, that share its processors or GPUs.

    They begin by `context`, but where there are GPUs, whose library does not bear to be forked.
    """
    from beats_search.search.backends.local import Workers
    from beats_search.search.backends.warm import COLD
    from beats_search.search.study import by
    from beats_search.training.devices import cuda_devices

    del problem
    devices, cores = cuda_devices(place.reference.training.device, os.environ), usable_cores()
    count = automatic(budget.trials, devices, cores) if budget.workers == "auto" else budget.workers
    own = environments(count, devices, cores)
    return by(Workers(place, own, budget.trial_timeout, COLD if devices else context()))


@contextlib.contextmanager
def hiring() -> "Iterator[Callable[[str], Hire]]":
    """Yield what gives who tries plans by a space's backend; processes of this machine begin to import meanwhile."""
    from beats_search.search.backends.warm import warmed

    with contextlib.ExitStack() as importing:
        context = importing.enter_context(warmed("beats_search.trial.imported"))

        def hire(backend: str) -> Hire:
            if backend != "ray":
                return partial(spawned, context)
            importing.close()
            return clustered

        yield hire


def clustered(problem: "Problem", place: Workplace, budget: "SearchPlan") -> "Drive":
    """Let a Ray cluster run trials."""
    from beats_search.search.backends.ray_tune import RayTune

    return RayTune(
        open_trials=Branch(place=place, paired=(place.paired.name, place.paired.read_bytes())),
        keep=partial(keep_model, place.folder),
        resources={"CPU": budget.resources.cpu, "GPU": budget.resources.gpu},
        workers=None if budget.workers == "auto" else budget.workers,
        address=budget.ray.address,
        stopping=problem.stopping,
        target=place.target,
        trial_timeout=budget.trial_timeout,
    )


def inline(problem: "Problem", place: Workplace, budget: "SearchPlan") -> "Drive":
    """Let this process run trials, which shares with them what it finds out before."""
    from beats_search.search.crew import Inline
    from beats_search.search.study import by

    del place, budget
    return by(Inline(problem.run_trial))


def automatic(trials: int, devices: Sequence[str], cores: int) -> int:
    """Return how many workers there is work and room for: one a GPU, else one a core, as memory allows."""
    free = _free_bytes()
    fit = len(devices) or cores
    return max(1, min(fit, trials, fit if free is None else free // _ROOM_BYTES))


def environments(count: int, devices: Sequence[str], cores: int) -> tuple[Mapping[str, str], ...]:
    """Return what each worker's environment adds: a GPU of its own, or a shared one, and its part of the threads."""
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores // count))
    own = [{"CUDA_VISIBLE_DEVICES": devices[index % len(devices)]} if devices else {} for index in range(count)]
    return tuple({"OMP_NUM_THREADS": threads, **each} for each in own)


def usable_cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_bytes() -> int | None:
    """Return the memory that is not in use, None where nobody tells."""
    with contextlib.suppress(OSError, ValueError):
        told = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        return 1024 * int(told["MemAvailable"].split()[0])
    return None


def instruments(
    window: "QuietWindow",
    *,
    reuse: bool,
    store: Path | None,
    counters: "EnergyCounters | None",
    depot: str = "",
) -> "Instruments":
    """Return what trials work with; where a space asks that nothing be reused, each is computed and timed."""
    from beats_search.trial.depot import Depot
    from beats_search.trial.run import Instruments
    from beats_search.trial.store import Store
    from beats_search.trial.timings import Timings

    timed = Timings() if reuse else None
    kept = None if store is None else Store(store, STORE_BYTES, Depot(depot) if depot else None)
    return Instruments(window=window, counters=counters, store=kept, timed=timed)
