"""Digits: the shipped space, as it is and without what is ours, in; the wall time until both know as much out.

    python tests/benchmarks/search_efficiency.py digits --out FILE.json [--seeds 5]

For each seed the space is searched twice, each time by a process of its own on the otherwise idle
machine, in turns as to which comes first: as shipped, and with `--sampler tpe`, no store, no probe
and no stopping. The clock is the wall's from the start of the process on. Both are judged by one
timing of all structures that any of them finished, side by side. What counts is when the shipped
search had the hypervolume with which the other ended.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

from beats_search.app.problem import STORE
from beats_search.app.running import RunRequest, run
from beats_search.measuring.machine import describe_machine
from search_efficiency_arms import Noting, Search, Tried
from search_efficiency_courses import write_aside
from search_efficiency_latencies import latencies
from search_efficiency_real import course

ASKED: Final = 0.25
SHIPPED, PLAIN = "shipped", "plain"
CHANGES: Final[Mapping[str, tuple[str, ...]]] = {
    SHIPPED: (),
    PLAIN: ("search.sampler=tpe", "search.probe=false", "search.stop_early=false", "search.reuse=false"),
}
_SPACE: Final = Path(__file__).resolve().parents[2] / "search_spaces" / "digits.yaml"
_FIRST_SEED: Final = 100


def main(arguments: Sequence[str]) -> None:
    """Run what has not been run, time what was found, and write and print the figures."""
    chosen = _read(arguments)
    folder = chosen.out.with_suffix(".searches")
    searches = []
    for seed in range(_FIRST_SEED, _FIRST_SEED + chosen.seeds):
        names = list(CHANGES)[:: 1 if seed % 2 else -1]
        searches += [_kept(folder, name, seed) for name in names]
    found = compared(searches, latencies(searches, folder / "latencies.json"))
    head = {"schema": 1, "step": "digits", "date": datetime.now(UTC).date().isoformat()}
    versions = {name: version(name) for name in ("beats-search", "optuna", "torch", "onnxruntime")}
    written = json.loads(json.dumps(found), parse_constant=lambda _: None)  # what was never reached
    write_aside(chosen.out, {**head, "machine": dict(describe_machine()), "versions": versions, **written})
    print(lines(found))


def compared(searches: Sequence[Search], ratios: Mapping[str, float]) -> dict[str, Any]:
    """Return for each seed what both searches came to, and their seconds until what the plain one came to."""
    courses = {(each.arm, each.seed): course(each, ratios) for each in searches}
    seeds = sorted({each.seed for each in searches})
    rows = [_row(seed, courses[SHIPPED, seed], courses[PLAIN, seed]) for seed in seeds]
    shares = [row["share"] for row in rows]
    return {"share": {"median": median(shares), "low": min(shares), "high": max(shares), "asked": ASKED}, "seeds": rows}


def lines(found: Mapping[str, Any]) -> str:
    """Return the figures as a table."""
    rows = [f"{'seed':>5}{'volume, shipped':>17}{'plain':>9}{'seconds to the latter':>23}{'plain':>8}{'share':>8}"]
    rows += [
        f"{row['seed']:5}{row['shipped_volume']:17.4f}{row['plain_volume']:9.4f}"
        f"{row['shipped_seconds']:23.0f}{row['plain_seconds']:8.0f}{row['share']:8.2f}"
        for row in found["seeds"]
    ]
    share = found["share"]
    words = f"share of the wall time: {share['median']:.2f} [{share['low']:.2f}, {share['high']:.2f}]"
    return "\n".join([*rows, f"{words}, n = {len(found['seeds'])}, asked: at most {share['asked']}"])


def _row(
    seed: int, shipped: Sequence[tuple[float, float]], plain: Sequence[tuple[float, float]]
) -> dict[str, int | float]:
    """Return the figures of a seed; a share is infinite where the shipped search never came to as much."""
    spent, wanted = plain[-1]
    reached = next((at for at, volume in shipped if volume >= wanted), math.inf)
    first = next(at for at, volume in plain if volume >= wanted)
    return {
        "seed": seed,
        "shipped_volume": shipped[-1][1],
        "plain_volume": wanted,
        "shipped_seconds": reached,
        "plain_seconds": spent,
        "plain_last_gain_seconds": first,
        "share": reached / spent,
    }


def _kept(folder: Path, name: str, seed: int) -> Search:
    """Return a search, from its file in a folder if it is there, else run in a process of its own and kept."""
    path = folder / f"{name}-{seed}.json"
    if not path.is_file():
        command = [sys.executable, __file__, name, str(seed), str(time.time()), str(path)]
        lookup = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": lookup})
        print(f"{name}, seed {seed}: done", flush=True)
    told = json.loads(path.read_text(encoding="utf-8"))
    return Search(**{**told, "tried": tuple(Tried(**each) for each in told["tried"])})


def _search(name: str, seed: int, began: float, out: Path) -> None:
    """Search and keep what was tried; `began` is when the process was started, by the clock of the day."""
    with tempfile.TemporaryDirectory() as made:
        os.environ[STORE] = f"{made}/store"
        noting = Noting(math.inf, clock=time.time)
        request = RunRequest(space=_SPACE, changes=(f"seed={seed}", *CHANGES[name]), out=Path(made) / "run")
        started = time.time() - began
        run(request, noting.watch)
    tried = [replace(each, at_s=started + each.at_s) for each in noting.tried]
    write_aside(out, asdict(Search(arm=name, seed=seed, budget_s=tried[-1].at_s, tried=tuple(tried))))


def _read(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--seeds", type=int, default=5)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    _name, _seed, _began, _out = sys.argv[1:]
    _search(_name, int(_seed), float(_began), Path(_out))
