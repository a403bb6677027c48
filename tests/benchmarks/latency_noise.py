"""Latency noise: one ranking on a quiet machine, one on a busy machine in, how well they agree out.

    python tests/benchmarks/latency_noise.py

Twenty networks (64-w-w-10) whose widths are chosen so that their latencies are evenly spread, in
logarithms, over a factor of 8. Each is timed as a trial of a search is, against the middle one, within
1.5 s: once while the machine is left alone, once while every other core multiplies matrices. Beside it
stands the naive way, the mean of 20 calls in one session. Then some are timed many times over, and the
stated intervals are held against the long-run ratio: that of very many rounds, half of them before
these timings and half after them.

The result, `reports/benchmarks/latency_noise.json`: `{"schema": 1, "date", "command", "machine",
"load_average", "settings": Settings, "structures": [{"width", "long_run_ratio", "quiet", "busy":
{"ratio", "low", "high", "naive_ms", "seconds", "disturbed"}}], "kendall_tau": {"ours", "naive"},
"error": {"ours", "naive": {"median", "largest"}}, "coverage": {"held", "intervals", "share", "median_half_width",
"by_width"}}`. An error is that of a quiet or a busy timing, as a share of the long-run value; the naive
one has the long-run ratio times the reference's long-run median to compare with.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from scipy import stats
from torch import nn

from beats_search.measuring.blocks import OpenSession, Protocol
from beats_search.measuring.latency import measure_latency, measure_together
from beats_search.measuring.machine import describe_machine
from beats_search.records.outcome import Latency
from beats_search.runtimes.onnxruntime import OnnxRuntime

_REPOSITORY: Final = Path(__file__).resolve().parents[2]
_FACTOR: Final = 8.0
_NAIVE_CALLS: Final = 20
_FEATURES: Final = 64
_WIDTHS: Final = tuple(int(width) for width in np.unique(np.geomspace(96, 1400, 14).round()))
Figures: TypeAlias = Mapping[str, Any]
"""The figures as they are written."""

_SPIN: Final = "import numpy\nmatrix = numpy.ones((512, 512))\nwhile True:\n    matrix @ matrix"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much is timed; seconds are for one structure."""

    structures: int
    repeated: int
    repeats: int
    long_run_s: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One structure, timed once in our way and once in the naive way."""

    ratio: float
    low: float
    high: float
    naive_ms: float
    seconds: float
    disturbed: bool


def main(arguments: Sequence[str]) -> None:
    """Time what the command line asks for; print the figures and write them."""
    given = _parser().parse_args(arguments)
    settings = _settings(given)
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        shelf = Shelf(Path(folder), settings.seed)
        widths = evenly_spread(shelf, settings)
        reference = shelf.sessions(widths[len(widths) // 2])
        before = long_run(shelf, widths, reference, settings)
        usual_ms = before[len(widths) // 2].median_ms
        quiet = ranking(shelf, widths, reference, usual_ms, settings)
        with busy_cores():
            busy = ranking(shelf, widths, reference, usual_ms, settings)
        some = widths[:: max(1, len(widths) // settings.repeated)]
        coverage = covered(shelf, some, widths[len(widths) // 2], settings)
        after = long_run(shelf, widths, reference, settings)
    truth = [Long(ratio=(a.ratio * b.ratio) ** 0.5, median_ms=b.median_ms) for a, b in zip(before, after, strict=True)]
    figures: Figures = {
        "structures": [
            {"width": width, "long_run_ratio": long.ratio, "quiet": asdict(one), "busy": asdict(other)}
            for width, long, one, other in zip(widths, truth, quiet, busy, strict=True)
        ],
        "kendall_tau": {
            "ours": tau([timing.ratio for timing in quiet], [timing.ratio for timing in busy]),
            "naive": tau([timing.naive_ms for timing in quiet], [timing.naive_ms for timing in busy]),
        },
        "error": errors(truth, [quiet, busy]),
        "coverage": coverage,
    }
    print(in_words(figures, quiet + busy))
    _write(given.out, arguments, settings, load, figures)


class Shelf:
    """Exported networks by their width, made when they are first asked for."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._seed = seed
        self._runtime = OnnxRuntime()

    def sessions(self, width: int) -> OpenSession:
        """Return what opens a fresh session of the network of a width."""
        path = self._folder / f"{width}.onnx"
        if path.exists():
            return self._runtime.load(path).open
        torch.manual_seed(self._seed)
        hidden = (nn.Linear(_FEATURES, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        network = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, 10)).eval()
        return self._runtime.deploy(network, torch.rand(1, 1, 8, 8), path).open


def evenly_spread(shelf: Shelf, settings: Settings) -> list[int]:
    """Return widths whose latencies are evenly spread in logarithms, by interpolation between measured ones."""
    rules = Protocol(half_width=0.0, budget_s=min(1.5, settings.long_run_s))
    (first, *rest) = _WIDTHS
    found = measure_together([shelf.sessions(width) for width in rest], shelf.sessions(first), protocol=rules)
    logs = np.maximum.accumulate([0.0, *(np.log(latency.ratio) for latency in found)])
    top = float(logs[-1])
    wanted = np.linspace(max(0.0, top - np.log(_FACTOR)), top, settings.structures)
    return [round(float(width)) for width in np.exp(np.interp(wanted, logs, np.log(_WIDTHS)))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Long:
    """What very many rounds say of one structure."""

    ratio: float
    median_ms: float


def long_run(shelf: Shelf, widths: Sequence[int], reference: OpenSession, settings: Settings) -> list[Long]:
    """Return the long-run ratios and medians of all widths, timed in the same rounds."""
    rules = Protocol(half_width=0.0, budget_s=settings.long_run_s / 2)
    found = measure_together([shelf.sessions(width) for width in widths], reference, protocol=rules)
    return [Long(ratio=latency.ratio, median_ms=latency.median_ms) for latency in found]


def ranking(
    shelf: Shelf, widths: Sequence[int], reference: OpenSession, usual_ms: float, settings: Settings
) -> list[Timing]:
    """Return one timing of each width, made in random order."""
    order = np.random.default_rng(settings.seed).permutation(len(widths)).tolist()
    timings = {place: timing(shelf.sessions(widths[place]), reference, usual_ms, seed=place) for place in order}
    return [timings[place] for place in range(len(widths))]


def timing(candidate: OpenSession, reference: OpenSession, usual_ms: float, seed: int) -> Timing:
    """Time a candidate in both ways, in ours as a trial is: the reference's usual time is known."""
    began = time.perf_counter()
    latency = measure_latency(candidate, reference, reference_median_ms=usual_ms, seed=seed)
    seconds = time.perf_counter() - began
    ends = latency.ratio_interval
    return Timing(
        ratio=latency.ratio,
        low=ends.low,
        high=ends.high,
        naive_ms=naive_ms(candidate),
        seconds=seconds,
        disturbed=latency.disturbed,
    )


def naive_ms(candidate: OpenSession) -> float:
    """Return the mean of some calls in one session, after one call to warm up."""
    call = candidate()
    call()
    began = time.perf_counter()
    for _ in range(_NAIVE_CALLS):
        call()
    return 1000 * (time.perf_counter() - began) / _NAIVE_CALLS


def covered(shelf: Shelf, widths: Sequence[int], middle: int, settings: Settings) -> dict[str, object]:
    """Return how many intervals of repeated timings hold the long-run ratio of the same minutes."""
    reference = shelf.sessions(middle)
    held: dict[int, int] = {}
    half_widths: list[float] = []
    for width in widths:
        before, usual = long_run(shelf, [width, middle], reference, settings)
        sessions = shelf.sessions(width)
        found = [
            measure_latency(sessions, reference, reference_median_ms=usual.median_ms, seed=seed)
            for seed in range(settings.repeats)
        ]
        after, _ = long_run(shelf, [width, middle], reference, settings)
        held[width] = sum(holds(latency, (before.ratio * after.ratio) ** 0.5) for latency in found)
        half_widths += [np.log(each.ratio_interval.high / each.ratio_interval.low) / 2 for each in found]
    intervals = settings.repeats * len(widths)
    return {
        "held": sum(held.values()),
        "intervals": intervals,
        "share": sum(held.values()) / intervals,
        "median_half_width": float(np.median(half_widths)),
        "by_width": {str(width): count for width, count in held.items()},
    }


def holds(latency: Latency, ratio: float) -> bool:
    """Tell whether the stated interval holds a ratio."""
    return latency.ratio_interval.low <= ratio <= latency.ratio_interval.high


def tau(one: Sequence[float], other: Sequence[float]) -> float:
    """Return Kendall's rank correlation."""
    return float(stats.kendalltau(one, other).statistic)


def errors(truth: Sequence[Long], rankings: Sequence[Sequence[Timing]]) -> dict[str, dict[str, float]]:
    """Return how far the timings are from the long-run values, as shares."""
    pairs = [(long, each) for timings in rankings for long, each in zip(truth, timings, strict=True)]
    ours = [abs(each.ratio / long.ratio - 1) for long, each in pairs]
    naive = [abs(each.naive_ms / long.median_ms - 1) for long, each in pairs]
    return {
        name: {"median": float(np.median(found)), "largest": max(found)}
        for name, found in (("ours", ours), ("naive", naive))
    }


@contextmanager
def busy_cores() -> Iterator[None]:
    """Keep every core but one busy."""
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    spinning = [
        subprocess.Popen([sys.executable, "-c", _SPIN], env=alone) for _ in range(max(1, (os.cpu_count() or 2) - 1))
    ]
    try:
        time.sleep(1.0)  # until they have imported numpy
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def in_words(figures: Figures, timings: Sequence[Timing]) -> str:
    """Return the figures as lines for a terminal."""
    taus, error, coverage = (figures[name] for name in ("kendall_tau", "error", "coverage"))
    lines = [f"{'':12}{'tau quiet/busy':>16}{'median error':>16}{'largest error':>16}"]
    for name in ("ours", "naive"):
        found = error[name]
        lines.append(f"{name:12}{taus[name]:16.3f}{found['median']:16.1%}{found['largest']:16.1%}")
    share, half = coverage["share"], coverage["median_half_width"]
    held = f"{coverage['held']} of {coverage['intervals']} intervals hold the long-run ratio ({share:.1%})"
    slowest = max(each.seconds for each in timings)
    return "\n".join([*lines, f"{held}, half width {half:.1%} in the median", f"longest timing {slowest:.2f} s"])


def _settings(given: argparse.Namespace) -> Settings:
    if given.quick:
        return Settings(structures=5, repeated=1, repeats=3, long_run_s=0.6, seed=given.seed)
    return Settings(
        structures=given.structures,
        repeated=given.repeated,
        repeats=given.repeats,
        long_run_s=given.long_run,
        seed=given.seed,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Compare rankings by latency on a quiet and on a busy machine.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    out = _REPOSITORY / "reports" / "benchmarks" / "latency_noise.json"
    parser.add_argument("--structures", type=_positive, default=20, help="networks in the ranking")
    parser.add_argument("--repeated", type=_positive, default=4, help="networks that are timed many times over")
    parser.add_argument("--repeats", type=_positive, default=40, help="timings of each of these")
    parser.add_argument("--long-run", type=float, default=20.0, help="seconds a network for its long-run ratio")
    parser.add_argument("--seed", type=int, default=0, help="of weights and orders")
    parser.add_argument("--quick", action="store_true", help="very little of everything, to see that it works")
    parser.add_argument("--out", type=Path, default=out, help="the JSON file to write")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"needs to be at least 1, got {number}")
    return number


def _write(
    out: Path,
    arguments: Sequence[str],
    settings: Settings,
    load: tuple[float, float, float],
    figures: Figures,
) -> None:
    document = {
        "schema": 1,
        "date": datetime.now(tz=UTC).date().isoformat(),
        "command": shlex.join(["python", "tests/benchmarks/latency_noise.py", *arguments]),
        "machine": {"host_system": platform.system(), **describe_machine()},
        "load_average": load,
        "settings": asdict(settings),
        **figures,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
