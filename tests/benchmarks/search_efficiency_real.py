"""Real searches: arms, seeds and a budget in, device-seconds until shares of the best hypervolume out.

    python tests/benchmarks/search_efficiency.py real --out FILE.json [--data FOLDER] [--seeds 3] [--budget 90]

MNIST's first 5,000 images, the shipped trainer. All searches are run one after the other, seed by
seed, and each is kept in the folder FILE.searches; peers get eight times the budget, parts of ours
four times. Then every structure that any of them finished is timed once more, side by side in one
sitting, and the hypervolume of the front of all searches together is the whole; a target that was
not reached counts as the budget that was spent. Ours goes on for three times its budget. The
hypervolume is the one that a run tells of itself: from guessing and 1.1 times the latency of trial 0
on. Beside it stands a stricter one, in which accuracy counts from 0.9 on.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

from beats_search.measuring.machine import describe_machine
from beats_search.pareto import hypervolume
from beats_search.records.objective import Objective
from beats_search.records.plain import from_plain, to_plain
from beats_search.records.plan import TrialPlan
from search_efficiency_arms import ARMS, Search, Tried
from search_efficiency_courses import write_aside
from search_efficiency_latencies import latencies, structure
from search_efficiency_plot import Line, plot
from throughput_files import find_files, unpacked

PEERS: Final = ("tpe", "nsga2", "ray_optuna")
FACTOR: Final = 8
"""Peers get so many times the budget of all of ours."""

OURS_FACTOR: Final = 3
"""All of ours goes on for so many times its budget, for what it has not reached within it."""

PARTS_FACTOR: Final = 4
"""Parts of ours alone get so many times the budget of all of ours."""

TARGETS: Final = (0.9, 0.95, 0.98, 0.99)
_FIRST_SEED: Final = 100
GUESSING: Final = 0.1
"""The accuracy of guessing one of ten digits."""

STRICT: Final = 0.9
"""From here on accuracy counts in a stricter hypervolume, of which the last percents are most."""

_MARGIN: Final = 1.1
_OBJECTIVES: Final = (
    Objective(name="accuracy", direction="maximize"),
    Objective(name="latency_ms", direction="minimize"),
)
_SHOWN: Final = 60


def main(arguments: Sequence[str]) -> None:
    """Run what has not been run, time what was found, and write and print the summary."""
    chosen = _read(arguments)
    folder = chosen.out.with_suffix(".searches")
    seeds = range(_FIRST_SEED, _FIRST_SEED + chosen.seeds)
    searches = [_kept(folder, arm, seed, chosen) for seed in seeds for arm in chosen.arms]
    ratios = _timed(searches, folder / "latencies.json", chosen.data)
    found, strict = (summarize(searches, ratios, least) for least in (GUESSING, STRICT))
    write_aside(chosen.out, {**_head(chosen), "summaries": found, "summaries_strict": strict})
    print(f"{lines(found)}\n\naccuracy from {STRICT} on alone\n{lines(strict)}")
    drawn = [Line(name=item["arm"], points=tuple(map(tuple, item["median_course"]))) for item in found]
    labels = ("device-seconds", "share of the hypervolume of all searches together")
    chosen.out.with_suffix(".svg").write_text(plot(drawn, *labels), encoding="utf-8")


def course(
    search: Search, ratios: Mapping[str, float], whole: float = 1.0, least: float = GUESSING
) -> list[tuple[float, float]]:
    """Return the seconds after each trial with the hypervolume above an accuracy until then, as a share of `whole`."""
    points: list[tuple[float, float]] = []
    found: list[tuple[float, float]] = []
    for tried in search.tried:
        points.extend(_points(tried, ratios))
        found.append((tried.at_s, _volume(points, least) / whole))
    return found


def summarize(searches: Sequence[Search], ratios: Mapping[str, float], least: float) -> list[dict[str, Any]]:
    """Return for each arm its seconds to the targets over seeds, and what these are to those of `frontier`."""
    whole = _volume([point for each in searches for tried in each.tried for point in _points(tried, ratios)], least)
    arms = list(dict.fromkeys(each.arm for each in searches))
    courses = {arm: [course(each, ratios, whole, least) for each in searches if each.arm == arm] for arm in arms}
    return [_summary(arm, [each for each in searches if each.arm == arm], courses) for arm in arms]


def lines(found: Sequence[Mapping[str, Any]]) -> str:
    """Return summaries as a table: medians with their range over seeds, > where the budget was not enough."""
    head = f"{'':22}" + "".join(f"{f'seconds to {target:.0%}':>28}" for target in TARGETS)
    rows = [head + f"{'trials':>8}{'finished':>10}  n"]
    for item in found:
        cells = "".join(f"{_cell(item['seconds'][f'{target:g}']):>28}" for target in TARGETS)
        rows.append(f"{item['arm']:22}{cells}{item['trials']:8g}{item['finished']:10g}  {item['seeds']}")
    rows += [
        f"{item['arm']} takes {item['times_frontier']:.1f} times the seconds of frontier to 95 %"
        for item in found
        if "times_frontier" in item
    ]
    return "\n".join(rows)


def _summary(
    arm: str, searches: Sequence[Search], courses: Mapping[str, Sequence[Sequence[tuple[float, float]]]]
) -> dict[str, Any]:
    seconds = {f"{target:g}": _seconds(searches, courses[arm], target) for target in TARGETS}
    ended = [tried.ended for each in searches for tried in each.tried]
    found: dict[str, Any] = {
        "arm": arm,
        "seeds": len(searches),
        "budget_s": searches[0].budget_s,
        "seconds": seconds,
        "trials": median(len(each.tried) for each in searches),
        "finished": ended.count("Finished") / len(searches),
        "final_share": [own[-1][1] for own in courses[arm]],
        "median_course": _median_course(courses[arm], searches[0].budget_s),
    }
    ours = courses.get("frontier")
    if ours and arm != "frontier":
        spent = [_until(own, 0.95, searches[0].budget_s) for own in courses[arm]]
        own = median(_until(each, 0.95, math.inf) for each in ours)
        if own < math.inf:
            found["times_frontier"] = median(spent) / own
    return found


def _seconds(
    searches: Sequence[Search], courses: Sequence[Sequence[tuple[float, float]]], target: float
) -> dict[str, Any]:
    """Return the median, the range and how many reached a target; one that did not counts as its budget."""
    taken = [_until(own, target, each.budget_s) for own, each in zip(courses, searches, strict=True)]
    reached = sum(_until(own, target, math.inf) < math.inf for own in courses)
    return {"median": median(taken), "low": min(taken), "high": max(taken), "reached": reached, "of": len(taken)}


def _until(own: Sequence[tuple[float, float]], target: float, otherwise: float) -> float:
    return next((at for at, share in own if share >= target), otherwise)


def _median_course(courses: Sequence[Sequence[tuple[float, float]]], budget_s: float) -> list[tuple[float, float]]:
    """Return the median share over seeds at moments that are evenly spread in the logarithm."""
    moments = [budget_s ** (index / _SHOWN) for index in range(_SHOWN + 1)]
    return [(moment, median(_at(own, moment) for own in courses)) for moment in moments]


def _at(own: Sequence[tuple[float, float]], moment: float) -> float:
    return max((share for at, share in own if at <= moment), default=0.0)


def _points(tried: Tried, ratios: Mapping[str, float]) -> Iterator[tuple[float, float]]:
    if tried.accuracy is not None:
        yield tried.accuracy, ratios[structure(from_plain(TrialPlan, tried.plan))]


def _volume(points: Sequence[tuple[float, float]], least: float) -> float:
    return hypervolume(points, (least, _MARGIN), _OBJECTIVES)


def _kept(folder: Path, arm: str, seed: int, chosen: argparse.Namespace) -> Search:
    """Return a search, from its file in a folder if it is there, else run in a process of its own and kept."""
    budget = chosen.budget * (OURS_FACTOR if arm == "frontier" else FACTOR if arm in PEERS else PARTS_FACTOR)
    path = folder / f"{arm}-{seed}-{budget:g}.json"
    if not path.is_file():
        script = Path(__file__).with_name("search_efficiency_arms.py")
        command = [sys.executable, str(script), arm, str(seed), str(budget), str(chosen.data), str(path)]
        one_thread = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(script.parent), *sys.path])}
        subprocess.run(command, check=True, env={**os.environ, **one_thread})
        print(f"{arm}, seed {seed}: done", flush=True)
    told = json.loads(path.read_text(encoding="utf-8"))
    return Search(**{**told, "tried": tuple(Tried(**each) for each in told["tried"])})


def _timed(searches: Sequence[Search], path: Path, data: Path) -> Mapping[str, float]:
    with unpacked(find_files(data)) as root:
        return latencies(searches, path, lambda plan: _at_root(plan, root))


def _at_root(plan: TrialPlan, root: Path) -> TrialPlan:
    """Return a plan whose data are in another folder: those of a search were unpacked for it alone."""
    told: Any = to_plain(plan)
    told["dataset"]["root"] = str(root)
    return from_plain(TrialPlan, told)


def _head(chosen: argparse.Namespace) -> dict[str, Any]:
    packages = ("beats-search", "optuna", "ray", "torch", "onnxruntime", "numpy")
    return {
        "schema": 1,
        "step": "real",
        "date": datetime.now(UTC).date().isoformat(),
        "budget_s": chosen.budget,
        "machine": dict(describe_machine()),
        "versions": {name: version(name) for name in packages},
    }


def _cell(found: Mapping[str, Any]) -> str:
    missed = "" if found["reached"] == found["of"] else f", {found['reached']}/{found['of']}"
    return f"{found['median']:.0f} [{found['low']:.0f}–{found['high']:.0f}]{missed}"


def _read(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--data", type=Path, default=shared, help="a folder with MNIST")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=float, default=90.0, help="processor-seconds of `frontier`; others get more")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    return parser.parse_args(arguments)
