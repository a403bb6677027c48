"""Fire: a search in a process of its own, killed at random moments and begun again until it has ended by itself.

    python tests/faults/fire.py [--kills 30] [--seed 0] [--workers 2] [--trials 400] [--real]

A coordinator or one of its workers is killed (SIGKILL), so many times; then the search goes on undisturbed. Outcomes
are functions of the plan, so that the end can be held against a search that nobody disturbed: every trial has an
answer, none was tried under two numbers, and the front is the same. With `--real` each trial trains, exports
and writes a network, so that kills also hit half-written stages, models and pages.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from beats_search.pareto import front_of_run
from beats_search.records.outcome import Failed
from beats_search.records.run import RunRecord
from beats_search.search.reading import read_run

TESTS: Final = Path(__file__).resolve().parents[1]
_PATIENCE_S: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fire:
    """How a search is disturbed: `kills` times, each after a pause of up to `longest_s`; workers as often as not."""

    kills: int
    seed: int
    workers: int
    longest_s: float
    trials: int = 40
    real: bool = False


def burn(folder: Path, fire: Fire) -> list[str]:
    """Search in a folder under fire until the search has ended, and return what was killed, in order."""
    chance, told = random.Random(fire.seed), list[str]()
    while len(told) < fire.kills:
        search = begin(folder, fire)
        ended = _killed(search, fire, chance, told)
        if ended:
            break
    finish(folder, fire)
    return told


def finish(folder: Path, fire: Fire) -> None:
    """Search in a folder until the search has ended, and disturb nothing."""
    search = begin(folder, fire)
    _, errors = search.communicate(timeout=_PATIENCE_S)
    if search.returncode:
        raise RuntimeError(f"the search ended with {search.returncode}:\n{errors}")


def begin(folder: Path, fire: Fire) -> subprocess.Popen[str]:
    """Begin, or go on with, the search in a folder."""
    script = TESTS / "faults" / ("real_search.py" if fire.real else "toy_search.py")
    return subprocess.Popen(
        [sys.executable, str(script), str(folder), str(fire.workers), str(fire.trials)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _killed(search: subprocess.Popen[str], fire: Fire, chance: random.Random, told: list[str]) -> bool:
    """Kill workers of a search and then the search itself; tell whether it had ended before."""
    while len(told) < fire.kills:
        time.sleep(chance.uniform(0.0, fire.longest_s))
        if search.poll() is not None:
            if search.returncode:
                raise RuntimeError(f"the search ended with {search.returncode}:\n{search.communicate()[1]}")
            return True
        workers = _children(search.pid)
        if workers and chance.random() < 0.5:
            told.append("worker")
            _kill(chance.choice(workers))
            continue
        told.append("search")
        search.kill()
        search.communicate()
        return False
    search.kill()
    search.communicate()
    return False


def _children(process: int) -> Sequence[int]:
    """Return the processes that another one has begun, apart from the one that keeps track of what is shared."""
    try:
        told = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii").split()
        return [int(each) for each in told if "resource_tracker" not in _command(int(each))]
    except OSError:
        return []


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "resource_tracker"


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return


def main() -> None:
    """Burn a search and hold it against one that nobody disturbed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--longest", type=float, default=6.0)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--real", action="store_true")
    chosen = parser.parse_args()
    fire = Fire(
        kills=chosen.kills,
        seed=chosen.seed,
        workers=chosen.workers,
        longest_s=chosen.longest,
        trials=chosen.trials,
        real=chosen.real,
    )
    with tempfile.TemporaryDirectory() as made:
        burnt, calm = Path(made) / "burnt", Path(made) / "calm"
        for folder in (burnt, calm):
            folder.mkdir()
        told = burn(burnt, fire)
        finish(calm, fire)
        print(f"seed {fire.seed}: {len(told)} killed, {told.count('search')} searches, {told.count('worker')} workers")
        damage = damages(study_of(burnt), study_of(calm))
        print("\n".join(damage) or "every trial has its answer, none was tried twice, the front is the same")
        sys.exit(bool(damage))


def study_of(folder: Path) -> RunRecord:
    """Return the run in a folder with the figures that its search knew."""
    return read_run(next(folder.rglob("study.db"))).as_searched()


def damages(burnt: RunRecord, calm: RunRecord) -> list[str]:
    """Return in words what is wrong with a run under fire beside one that nobody disturbed."""
    plans = [trial.plan.fingerprint() for trial in burnt.trials]
    wrong = {
        f"{len(burnt.trials)} trials in place of {len(calm.trials)}": len(burnt.trials) != len(calm.trials),
        "some plan was tried under two numbers": len(plans) != len(set(plans)),
        "other plans were tried": set(plans) != {trial.plan.fingerprint() for trial in calm.trials},
        "some trial failed": any(
            isinstance(trial.outcome, Failed) and trial.outcome.stage == "process" for trial in burnt.trials
        ),
        "the front is another one": _front(burnt) != _front(calm),
    }
    return [words for words, is_so in wrong.items() if is_so]


def _front(run: RunRecord) -> set[str]:
    return {trial.plan.fingerprint() for trial, _ in front_of_run(run)}


if __name__ == "__main__":
    main()
