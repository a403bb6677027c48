"""Arms: a way to search, a seed and a budget in, what one real search tried and when out. Each runs in its own process.

    python tests/benchmarks/search_efficiency_arms.py ARM SEED BUDGET_S DATA OUT.json

All arms search one space with one trainer on one thread, and their clock is the processor time of
the process from the first look at the space on, so that what else the machine does is not counted:
proposals, probes, measuring and the reference are. `ray_optuna` is Ray Tune's OptunaSearch, asked
and told without Ray around it, which costs it nothing.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from beats_search.app.first_look import first_look
from beats_search.app.problem import STORE
from beats_search.app.running import RunRequest, run
from beats_search.app.spaces import read
from beats_search.app.working import inline
from beats_search.measuring.quiet import window_of_machine
from beats_search.records.event import Ended, Event
from beats_search.records.outcome import Finished, TrialOutcome
from beats_search.records.plain import to_plain
from beats_search.records.plan import TrialPlan
from beats_search.records.run import RunRecord
from beats_search.search.domain import domain_of
from beats_search.search.proposal import Asked
from beats_search.trial.run import Instruments, run_trial
from search_efficiency_courses import write_aside
from throughput_files import find_files, unpacked

SPACE: Final = """
name: mnist5k
dataset: {{name: "search_efficiency_data:few", root: "{root}"}}
model: {{name: cnn, width: {{choice: [4, 8, 16]}}, dense: {{choice: [32, 64, 128]}}}}
training:
  epochs: 8
  batch_size: 64
  optimizer: {{name: sgd, momentum: 0.9, weight_decay: 5e-4}}
  lr: {{low: 1e-3, high: 1.0, log: true}}
  schedule: {{choice: [constant, cosine, one_cycle]}}
  accumulation: {{window: {{choice: [1, 4]}}}}
compression:
  - {{name: channel_pruning, layers: [conv1], ratio: {{low: 0.0, high: 0.75, step: 0.25}}, round_to: 1}}
  - {{name: channel_pruning, layers: [conv2], ratio: {{low: 0.0, high: 0.75, step: 0.25}}, round_to: 1}}
  - name: channel_pruning
    layers: [fc1]
    ratio: {{low: 0.0, high: 0.75, step: 0.25}}
    round_to: 1
    recovery_epochs: {{choice: [0, 1, 2]}}
  - {{name: quantization, bits: {{choice: [32, 8, 4, 2]}}}}
runtime: {{name: onnxruntime, threads: 1, batch_size: 1}}
objectives: {{accuracy: maximize, latency_ms: minimize}}
search: {{trials: 100000, timeout: 24h}}
"""

_NOTHING: Final = {"probe": False, "stop_early": False, "reuse": False}
SETTINGS: Final[Mapping[str, Mapping[str, object]]] = {
    "frontier": {"sampler": "frontier"},
    "known_latency_only": {"sampler": "frontier", **_NOTHING, "probe": True},
    "stopping_only": {"sampler": "tpe", **_NOTHING, "probe": True, "stop_early": True},
    "stage_tree_only": {"sampler": "tpe", **_NOTHING, "reuse": True},
    "tpe": {"sampler": "tpe", **_NOTHING},
    "nsga2": {"sampler": "nsga2", **_NOTHING},
}
"""Of arms that are runs of this project, the keys under `search`. Stopping asks the probe for the bar of a trial."""

RAY: Final = "ray_optuna"
ARMS: Final = (*SETTINGS, RAY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A trial that ended `at_s` on the clock; accuracy is None unless it finished."""

    at_s: float
    ended: str
    plan: Any
    accuracy: float | None
    latency_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """All that one search tried, the reference first."""

    arm: str
    seed: int
    budget_s: float
    tried: tuple[Tried, ...]


def search(arm: str, seed: int, budget_s: float, data: Path) -> Search:
    """Run one search until its budget of processor time is spent."""
    with unpacked(find_files(data)) as root, tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        os.environ[STORE] = str(folder / "store")
        space = folder / "space.yaml"
        space.write_text(SPACE.format(root=root), encoding="utf-8")
        noting = Noting(budget_s)
        started = _with_ray if arm == RAY else _with_settings(SETTINGS[arm])
        started(space, seed, folder / "run", noting)
        return Search(arm=arm, seed=seed, budget_s=budget_s, tried=tuple(noting.tried))


class Noting:
    """Notes each outcome, and interrupts the search when the budget is spent."""

    def __init__(self, budget_s: float, clock: Callable[[], float] = time.process_time) -> None:
        """Set the clock to 0."""
        self.tried: list[Tried] = []
        self._budget_s = budget_s
        self._clock = clock
        self.start()

    def start(self) -> None:
        """Set the clock to 0."""
        self._began = self._clock()

    @property
    def spent(self) -> bool:
        """Whether the budget is."""
        return self._clock() - self._began >= self._budget_s

    def note(self, plan: TrialPlan, outcome: TrialOutcome) -> None:
        """Note what a plan came to, now."""
        finished = outcome if isinstance(outcome, Finished) else None
        self.tried.append(
            Tried(
                at_s=self._clock() - self._began,
                ended=type(outcome).__name__,
                plan=to_plain(plan),
                accuracy=finished.accuracy if finished else None,
                latency_ms=finished.latency.median_ms if finished else None,
            )
        )

    def watch(self, event: Event, _: RunRecord) -> None:
        """Note the outcomes among the events of a run; KeyboardInterrupt ends it as Ctrl-C does."""
        if isinstance(event, Ended):
            self.note(event.record.plan, event.record.outcome)
        if self.spent:
            raise KeyboardInterrupt


_Start = Callable[[Path, int, Path, Noting], None]


def _with_settings(settings: Mapping[str, object]) -> _Start:
    def start(space: Path, seed: int, folder: Path, noting: Noting) -> None:
        keys = tuple(f"search.{name}={json.dumps(value)}" for name, value in settings.items())
        run(RunRequest(space=space, changes=(f"seed={seed}", *keys), out=folder), noting.watch, inline)

    return start


def _with_ray(space: Path, seed: int, folder: Path, noting: Noting) -> None:
    from ray.tune.search.optuna import OptunaSearch

    asked: dict[str, TrialPlan] = {}
    opened = read(space, (f"seed={seed}",))
    domain = domain_of(opened)

    def define(trial: Any) -> None:  # noqa: ANN401 - Optuna's trial, through Ray
        asked["plan"] = domain.draw(Asked(trial))

    searcher = OptunaSearch(space=define, metric=["accuracy", "latency_ms"], mode=["max", "min"], seed=seed)
    noting.start()  # after the import of Ray
    window = window_of_machine()
    tools = Instruments(window=window)
    with first_look(opened, window) as (reference, paired, _):
        noting.note(reference, run_trial(reference, folder / "0", paired, instruments=tools))
        number = 0
        while not noting.spent:
            number += 1
            searcher.suggest(str(number))
            plan = asked["plan"]
            outcome = run_trial(plan, folder / str(number), paired, instruments=tools)
            noting.note(plan, outcome)
            if isinstance(outcome, Finished):
                values = {"accuracy": outcome.accuracy, "latency_ms": outcome.latency.median_ms}
                searcher.on_trial_complete(str(number), result=values)
            else:
                searcher.on_trial_complete(str(number), error=True)


if __name__ == "__main__":
    _arm, _seed, _budget, _data, _out = sys.argv[1:]
    write_aside(Path(_out), asdict(search(_arm, int(_seed), float(_budget), Path(_data))))
