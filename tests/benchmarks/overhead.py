"""Overhead: what a search costs beside its trials, and what many workers and many trials make of it.

    python tests/benchmarks/overhead.py --out FILE.json [--steps local ray workers real many] [--trials 100]

`local`, `ray`: trials that do nothing, one at a time, in a process of their own and on Ray. A trial's overhead is
the wall time from one answer to the next, without the sampler and the storage, which are told beside it. `workers`:
trials that compute for a while, by two workers and by one, each on one thread, in turns; `real`: the same with trials
of digits, which keep still while another is timed. `many`: a run with so many recorded trials; the seconds that a
proposal, `show`, `report` and opening the page take, and the page's size.
"""

import argparse
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final
from unittest.mock import patch

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the toys of the tests

from search_toy import OBJECTIVES, Trials, budget, domain, finished, new_ledger, outcome_of, problem

from beats_search.app.recording import saving
from beats_search.app.running import RunRequest, run
from beats_search.measuring.machine import describe_machine
from beats_search.records.event import Ended, Event
from beats_search.records.outcome import TrialOutcome
from beats_search.records.plain import tagged, to_plain
from beats_search.search.attempt import KeepGoing
from beats_search.search.backends.local import Try, Workers
from beats_search.search.backends.ray_tune import Keep, RayTune
from beats_search.search.crew import Job
from beats_search.search.ledger import Ledger
from beats_search.search.study import Drive, by, search
from search_efficiency_courses import write_aside

_TESTS: Final = Path(__file__).resolve().parents[1]
_SPACE: Final = _TESTS.parent / "search_spaces" / "digits.yaml"
_EPOCHS: Final = 30
_BUSY_S: Final = 0.25
_REPEATS: Final = 3
_FIRST: Final = 5
"""So many trials at the start are not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """Opens what answers at once, or after so many seconds of computing."""

    busy_s: float = 0.0

    def __call__(self, _: Keep | None = None) -> Try:
        """Return what tries plans."""
        return self._try

    def _try(self, job: Job, keep_going: KeepGoing) -> TrialOutcome:
        del keep_going
        until = time.process_time() + self.busy_s
        while time.process_time() < until:
            sum(range(1000))
        return outcome_of(job.plan)


class Clock:
    """Adds up the seconds that are spent within some functions; those within one another count once."""

    def __init__(self) -> None:
        """Begin at none."""
        self.seconds = 0.0
        self._inside = False

    def timing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, timed."""

        @functools.wraps(function)
        def timed(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - whatever it takes
            if self._inside:
                return function(*arguments, **options)
            self._inside, began = True, time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds += time.perf_counter() - began
                self._inside = False

        return timed


@contextmanager
def clocked(kind: type, clock: Clock) -> Iterator[None]:
    """Time all public methods of a class."""
    methods = {name: found for name, found in vars(kind).items() if callable(found) and not name.startswith("__")}
    with ExitStack() as stack:
        for name, found in methods.items():
            stack.enter_context(patch.object(kind, name, clock.timing(found)))
        yield


def of_trials(drive: Callable[[], Drive], trials: int) -> Mapping[str, float]:
    """Return the milliseconds that a trial costs in all, with its sampler and in the storage, as medians of runs."""
    rows = [_one_run(drive(), trials) for _ in range(_REPEATS)]
    return {name: median(row[name] for row in rows) for name in rows[0]} | {"trials": trials, "runs": len(rows)}


def _one_run(drive: Drive, trials: int) -> Mapping[str, float]:
    storage, sampler, marks = Clock(), Clock(), list[tuple[float, float, float]]()
    with tempfile.TemporaryDirectory() as made, new_ledger(Path(made) / "study.db") as ledger:
        note = saving(ledger, Path(made), lambda *_: None)

        def mark(event: Event) -> None:
            note(event)
            if isinstance(event, Ended):
                marks.append((time.perf_counter(), storage.seconds, sampler.seconds))

        backend: type = type(ledger._study._storage._backend)  # type: ignore[attr-defined] # behind Optuna's cache
        with clocked(backend, storage), patch.object(Ledger, "ask", sampler.timing(Ledger.ask)):
            search(problem(Trials()), ledger, budget(trials), mark, drive=drive)
    (began, stored, asked), (ended, stored_then, asked_then) = marks[_FIRST], marks[-1]
    count = len(marks) - 1 - _FIRST
    whole, in_storage, in_ask = (
        (b - a) * 1000 / count for a, b in ((began, ended), (stored, stored_then), (asked, asked_then))
    )
    return {"whole_ms": whole, "storage_ms": in_storage, "sampler_and_its_storage_ms": in_ask}


def of_workers(trials: int) -> Mapping[str, Any]:
    """Return by how much two workers are faster than one, with trials that only compute, in turns."""
    pairs = [(_seconds(1, trials), _seconds(2, trials)) for _ in range(_REPEATS)]
    ratios = sorted(one / two for one, two in pairs)
    return {"ratio": median(ratios), "low": ratios[0], "high": ratios[-1], "pairs": len(pairs), "trials": trials}


def of_real(trials: int) -> Mapping[str, Any]:
    """Return by how much two workers are faster than one in the shipped digits space, on one thread each, in turns."""
    pairs = [(_searching_s(1, trials), _searching_s(2, trials)) for _ in range(_REPEATS)]
    ratios = sorted(one / two for one, two in pairs)
    return {"ratio": median(ratios), "low": ratios[0], "high": ratios[-1], "pairs": len(pairs), "trials": trials}


def _searching_s(workers: int, trials: int) -> float:
    """Return the seconds from the end of the reference to that of the last trial."""
    ends: list[float] = []
    changes = {
        "search.workers": workers, "search.trials": trials, "search.sampler": "random_search", "search.timeout": "1h",
        "search.probe": "false", "search.stop_early": "false", "search.reuse": "false", "training.epochs": _EPOCHS,
    }  # fmt: skip

    def watch(event: Event, _: object) -> None:
        if isinstance(event, Ended):
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as made, patch.dict(os.environ, {"OMP_NUM_THREADS": "1"}):
        asked = tuple(f"{path}={value}" for path, value in changes.items())
        run(RunRequest(space=_SPACE, changes=asked, out=Path(made) / "run"), watch)
    return ends[-1] - ends[0]


def _seconds(workers: int, trials: int) -> float:
    marks: list[float] = []
    with tempfile.TemporaryDirectory() as made, new_ledger(Path(made) / "study.db") as ledger:
        crew = Workers(Nothing(busy_s=_BUSY_S), [{"OMP_NUM_THREADS": "1"}] * workers)
        search(problem(Trials()), ledger, budget(trials), lambda _: marks.append(time.perf_counter()), drive=by(crew))
    return marks[-1] - marks[2 * _FIRST]


def of_many(recorded: int) -> Mapping[str, float]:
    """Return what a run with so many trials makes of a proposal, `show`, `report` and its page."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "toy"
        folder.mkdir()
        path = folder / "study.db"
        with new_ledger(path) as ledger:
            search(problem(Trials()), ledger, budget(3))
            ledger._study.add_trials([_recorded(number) for number in range(recorded)])
        began = time.perf_counter()
        with Ledger.open(path) as ledger:
            opened = time.perf_counter()
            marks: list[float] = []
            watched = lambda _: marks.append(time.perf_counter())  # noqa: E731 - a clock
            search(problem(Trials()), ledger, budget(recorded + 8, "frontier"), watched)
        proposals = [b - a for a, b in zip(marks[1::2], marks[2::2], strict=False)]
        show_s, report_s = (_command(name, folder) for name in ("show", "report"))
        page = folder / "report.html"
        return {
            "recorded": recorded,
            "open_s": opened - began,
            "trial_in_all_s": median(proposals),
            "show_s": show_s,
            "report_s": report_s,
            "page_mb": page.stat().st_size / 1e6,
            "browser_s": _browser(page),
        }


def _recorded(number: int) -> FrozenTrial:
    """Return a finished trial of the toy space."""
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=number))
    return _told(study, number)


def _told(study: optuna.Study, number: int) -> FrozenTrial:
    from beats_search.search.proposal import Asked

    trial = study.ask()
    plan = domain().draw(Asked(trial))
    outcome = finished(0.4 + (number * 7919 % 5000) / 10000, 0.5 + (number * 104729 % 9973) / 2000)
    return create_trial(
        state=TrialState.COMPLETE,
        values=[outcome.value(goal.name) for goal in OBJECTIVES],
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={"plan": to_plain(plan), "outcome": tagged(outcome), "began_s": float(number), "seconds": 1.0},
    )


def _command(name: str, folder: Path) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "beats_search", name, str(folder)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _browser(page: Path) -> float:
    """Return the seconds from the address until a page is drawn, in a browser just begun; NaN without a browser."""
    chromium, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        return float("nan")
    return median(_opening(page, chromium, driver) for _ in range(_REPEATS))


def _opening(page: Path, chromium: str, driver: str) -> float:
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,1600"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=Service(executable_path=driver))
    try:
        browser.get("about:blank")
        began = time.perf_counter()
        browser.get(page.resolve().as_uri())
        drawn = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
        browser.execute_async_script(drawn)
        return time.perf_counter() - began
    finally:
        browser.quit()


def _on_ray() -> Drive:
    return RayTune(open_trials=Nothing(), keep=_drop, resources={"CPU": 1.0}, workers=1)


def _drop(_number: int, _name: str, _data: bytes) -> None:
    return


STEPS: Final[Mapping[str, Callable[[argparse.Namespace], Mapping[str, Any]]]] = {
    "local": lambda chosen: of_trials(lambda: by(Workers(Nothing(), [{}])), chosen.trials),
    "ray": lambda chosen: of_trials(_on_ray, chosen.trials),
    "workers": lambda chosen: of_workers(chosen.trials),
    "real": lambda chosen: of_real(chosen.real_trials),
    "many": lambda chosen: of_many(chosen.recorded),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what was asked for, and write and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), default=list(STEPS))
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--real-trials", type=int, default=20)
    parser.add_argument("--recorded", type=int, default=10_000)
    chosen = parser.parse_args(arguments)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(_TESTS), str(_TESTS.parent)])
    found: dict[str, Any] = {"schema": 1, "date": datetime.now(UTC).date().isoformat()}
    found["machine"] = dict(describe_machine())
    for step in chosen.steps:
        found[step] = STEPS[step](chosen)
        print(step, json.dumps(found[step]), flush=True)
        write_aside(chosen.out, found)


if __name__ == "__main__":
    main()
