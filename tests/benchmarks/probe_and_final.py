"""Probe and final timing: a space in, how often what was known before training agrees with the trained file out.

    python tests/benchmarks/probe_and_final.py --out FILE.json [--space FILE] [--timeout 4m]

Searches the space as `beats-search run` does, by default the shipped digits. For every trial that
finished, the latency of its trained file, measured after training, is divided by that of its probe; the 95 %
interval of this ratio combines both intervals, in logarithms. It should hold 1.
"""

import argparse
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final
from unittest.mock import patch

from beats_search.app.problem import STORE
from beats_search.app.running import RunRequest, run
from beats_search.app.working import inline
from beats_search.measuring.machine import describe_machine
from beats_search.records.outcome import Latency
from beats_search.records.plan import TrialPlan
from beats_search.trial import probe as probing
from search_efficiency_courses import write_aside

_REPOSITORY: Final = Path(__file__).resolve().parents[2]
ASKED_SHARE: Final = 0.9
ASKED_HALF_WIDTH: Final = 0.08


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A trial: its final latency over its probe's, and half the width of that ratio's 95 % interval in logarithms."""

    trial: int
    ratio: float
    half_width: float

    @property
    def holds(self) -> bool:
        """Whether the interval holds 1."""
        return abs(math.log(self.ratio)) <= self.half_width


def main(arguments: Sequence[str] | None = None) -> None:
    """Search, compare, write and print."""
    chosen = _read(arguments)
    pairs = compared(chosen.space, chosen.timeout)
    found = summary(pairs)
    head = {"schema": 1, "date": datetime.now(UTC).date().isoformat(), "machine": dict(describe_machine())}
    trials = [{"trial": each.trial, "ratio": each.ratio, "half_width": each.half_width} for each in pairs]
    write_aside(chosen.out, {**head, "space": chosen.space.name, **found, "pairs": trials})
    print(json.dumps(found, indent=1))


def compared(space: Path, timeout: str) -> list[Pair]:
    """Return the pairs of one search."""
    probed: dict[str, Latency] = {}
    foreseen = probing.foreseen

    def noted(plan: TrialPlan, found: probing.ProbedFile) -> Mapping[str, float]:
        probed[plan.fingerprint()] = found.latency
        return foreseen(plan, found)

    with tempfile.TemporaryDirectory() as folder, patch.object(probing, "foreseen", noted):
        os.environ[STORE] = f"{folder}/store"
        request = RunRequest(space=space, changes=(f"search.timeout={timeout}",), out=Path(folder) / "run")
        record = run(request, hire=inline).record.as_searched()
    return [
        pair(trial.number, outcome.latency, probed[trial.plan.fingerprint()])
        for trial, outcome in record.finished()
        if trial.plan.fingerprint() in probed
    ]


def pair(trial: int, final: Latency, probe: Latency) -> Pair:
    """Return the ratio of two timings that were paired with the same reference."""
    widths = [math.log(each.ratio_interval.high / each.ratio_interval.low) / 2 for each in (final, probe)]
    return Pair(trial=trial, ratio=final.ratio / probe.ratio, half_width=math.hypot(*widths))


def summary(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return the share of intervals that hold 1 and their median half-width, beside what is asked."""
    return {
        "trials": len(pairs),
        "share_that_holds_1": sum(each.holds for each in pairs) / len(pairs),
        "share_asked": ASKED_SHARE,
        "median_half_width": math.expm1(median(each.half_width for each in pairs)),
        "half_width_asked": ASKED_HALF_WIDTH,
    }


def _read(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    parser.add_argument("--space", type=Path, default=_REPOSITORY / "search_spaces" / "digits.yaml")
    parser.add_argument("--timeout", default="4m")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
