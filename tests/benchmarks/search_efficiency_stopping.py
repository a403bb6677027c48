"""Stopping: the shipped digits space searched with and without early stops, in; what these lost and saved out.

    python tests/benchmarks/search_efficiency.py stopping --out FILE.json [--seeds 5] [--trials 80]

Both searches of a seed try equally many trials. With `random_search` they try the same plans, so that
every trial that was stopped has a twin that went to its end, and the seconds that a run says it saved
stand beside those that the twins took. With `frontier` the plans part after the first stop. Final
hypervolumes are judged by one timing of all structures, side by side.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median
from typing import Any, Final

from beats_search.app.problem import STORE
from beats_search.app.running import RunRequest, run
from beats_search.app.working import inline
from beats_search.measuring.machine import describe_machine
from beats_search.records.outcome import Finished, Stopped
from beats_search.records.run import TrialRecord
from beats_search.report.savings import savings_of_run
from search_efficiency_arms import Noting, Search, Tried
from search_efficiency_courses import write_aside
from search_efficiency_latencies import latencies
from search_efficiency_real import course

SAMPLERS: Final = ("random_search", "frontier")
ASKED: Final = 0.01
_SPACE: Final = Path(__file__).resolve().parents[2] / "search_spaces" / "digits.yaml"
_FIRST_SEED: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Sitting:
    """A search, the seconds it says it saved, and per plan how its trial ended and the seconds of each of its epochs.

    `epochs` holds the seconds of epochs of training and, as the last of a finished trial, of all that compression took.
    """

    search: Search
    claimed_s: float
    seconds_s: float
    epochs: Mapping[str, tuple[float, ...]]
    stopped: tuple[str, ...]


def main(arguments: Sequence[str]) -> None:
    """Run what has not been run, time what was found, and write and print the figures."""
    chosen = _read(arguments)
    folder = chosen.out.with_suffix(".searches")
    seeds = range(_FIRST_SEED, _FIRST_SEED + chosen.seeds)
    pairs = {
        name: [tuple(_kept(folder, name, stop, seed, chosen.trials) for stop in (True, False)) for seed in seeds]
        for name in SAMPLERS
    }
    ratios = latencies(
        [each.search for of in pairs.values() for pair in of for each in pair], folder / "latencies.json"
    )
    found = {name: compared(of, ratios) for name, of in pairs.items()}
    head = {"schema": 1, "step": "stopping", "date": datetime.now(UTC).date().isoformat(), "trials": chosen.trials}
    versions = {name: version(name) for name in ("beats-search", "optuna", "torch", "onnxruntime")}
    write_aside(chosen.out, {**head, "machine": dict(describe_machine()), "versions": versions, "samplers": found})
    print(lines(found))


def compared(pairs: Sequence[Sequence[Sitting]], ratios: Mapping[str, float]) -> dict[str, Any]:
    """Return for pairs of searches, with and without stops, what of the hypervolume was lost and what was saved."""
    rows: list[dict[str, Any]] = []
    for stopping, whole in pairs:
        volumes = [course(each.search, ratios)[-1][1] for each in (stopping, whole)]
        twins = [name for name in stopping.stopped if name in whole.epochs]
        rows.append(
            {
                "seed": stopping.search.seed,
                "lost": 1 - volumes[0] / volumes[1],
                "volumes": volumes,
                "stopped": len(stopping.stopped),
                "seconds": [stopping.seconds_s, whole.seconds_s],
                "claimed_s": stopping.claimed_s,
                "twins": len(twins),
                "twins_s": sum(sum(whole.epochs[name][len(stopping.epochs[name]) :]) for name in twins),
            }
        )
    lost = [row["lost"] for row in rows]
    return {"lost": {"mean": mean(lost), "median": median(lost), "low": min(lost), "high": max(lost)}, "seeds": rows}


def lines(found: Mapping[str, Any]) -> str:
    """Return the figures as a table."""
    told = []
    for name, item in found.items():
        told.append(
            f"{name:15}{'lost':>8}{'stopped':>9}{'seconds':>9}{'without':>9}{'says saved':>12}{'twins took':>12}"
        )
        for row in item["seeds"]:
            both = f"{row['seconds'][0]:9.0f}{row['seconds'][1]:9.0f}"
            twins = f"{row['twins_s']:12.1f}" if row["twins"] == row["stopped"] else f"{'-':>12}"
            told.append(f"{row['seed']:15}{row['lost']:8.2%}{row['stopped']:9}{both}{row['claimed_s']:12.1f}{twins}")
        lost = item["lost"]
        spread = f"median {lost['median']:.2%} [{lost['low']:.2%}, {lost['high']:.2%}], n = {len(item['seeds'])}"
        told.append(f"hypervolume lost: mean {lost['mean']:.2%}, {spread}, asked: at most {ASKED:.0%}")
    return "\n".join(told)


def _kept(folder: Path, sampler: str, stop: bool, seed: int, trials: int) -> Sitting:  # noqa: FBT001 - from a tuple
    """Return a search, from its file in a folder if it is there, else run in a process of its own and kept."""
    path = folder / f"{sampler}-{'stopping' if stop else 'whole'}-{seed}-{trials}.json"
    if not path.is_file():
        command = [sys.executable, __file__, sampler, json.dumps(stop), str(seed), str(trials), str(path)]
        lookup = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": lookup, "OMP_NUM_THREADS": "1"})
        print(f"{path.stem}: done", flush=True)
    told = json.loads(path.read_text(encoding="utf-8"))
    tried = tuple(Tried(**each) for each in told["search"]["tried"])
    epochs = {name: tuple(seconds) for name, seconds in told["epochs"].items()}
    search = Search(**{**told["search"], "tried": tried})
    return Sitting(**{**told, "search": search, "epochs": epochs, "stopped": tuple(told["stopped"])})


def _search(sampler: str, stop: str, seed: int, trials: int, out: Path) -> None:
    """Search and keep what was tried."""
    with tempfile.TemporaryDirectory() as made:
        os.environ[STORE] = f"{made}/store"
        noting = Noting(float("inf"))
        keys = {
            "sampler": json.dumps(sampler),
            "stop_early": stop,
            "trials": trials,
            "timeout": "24h",
            "reuse": "false",
        }
        changes = (f"seed={seed}", *(f"search.{name}={value}" for name, value in keys.items()))
        record = run(RunRequest(space=_SPACE, changes=changes, out=Path(made) / "run"), noting.watch, inline).record
    ended = [trial for trial in record.trials if isinstance(trial.outcome, Finished | Stopped)]
    sitting = Sitting(
        search=Search(arm=sampler, seed=seed, budget_s=noting.tried[-1].at_s, tried=tuple(noting.tried)),
        claimed_s=savings_of_run(record).seconds,
        seconds_s=sum(trial.seconds for trial in record.trials),
        epochs={trial.plan.fingerprint(): _epochs(trial) for trial in ended},
        stopped=tuple(
            trial.plan.fingerprint()
            for trial in ended
            if isinstance(trial.outcome, Stopped) and not trial.outcome.foreseen
        ),
    )
    write_aside(out, asdict(sitting))


def _epochs(trial: TrialRecord) -> tuple[float, ...]:
    outcome = trial.outcome
    if isinstance(outcome, Finished):
        return *(score.seconds for score in outcome.curve), outcome.stage_seconds["compression"]
    return tuple(score.seconds for score in outcome.curve) if isinstance(outcome, Stopped) else ()


def _read(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=80)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    _sampler, _stop, _seed, _trials, _out = sys.argv[1:]
    _search(_sampler, _stop, int(_seed), int(_trials), Path(_out))
