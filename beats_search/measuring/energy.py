"""Energy: a callable and the processor's energy counters in, millijoules of one call out.

The kernel's powercap files (RAPL, on Intel and AMD processors) are read directly: two numbers a
domain need no library, and those that read them too (zeus, codecarbon, pyJoules) bring daemons, sample
at seconds, or are no longer kept. The counters see the whole processor, so nothing else should run.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from beats_search.measuring.noise import Centre, centre_of
from beats_search.records.errors import CommandError, TrialError
from beats_search.records.part import Part

_POWERCAP: Final = Path("/sys/class/powercap")
_WARMUP_CALLS: Final = 3
_UJ_PER_MJ: Final = 1000
_STRETCH_S: Final = 0.05  # the counters of most processors move every millisecond


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyCounters:
    """The counters of a machine: one folder a domain, with `energy_uj` and `max_energy_range_uj`."""

    domains: tuple[Path, ...]

    def read(self) -> tuple[int, ...]:
        """Return the microjoules that each domain has counted; they start anew at its range."""
        return tuple(_number(domain / "energy_uj") for domain in self.domains)

    def spent_mj(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """Return the millijoules of all domains between two readings, at most one range apart."""
        ranges = (_number(domain / "max_energy_range_uj") + 1 for domain in self.domains)
        spent = ((end - start) % most for start, end, most in zip(before, after, ranges, strict=True))
        return sum(spent) / _UJ_PER_MJ


def find_counters(root: Path = _POWERCAP) -> EnergyCounters:
    """Return the counters of all processor packages and their memory; CommandError where none can be read."""
    domains = tuple(domain for domain in sorted(root.glob("intel-rapl:*")) if _counts(domain))
    if not domains:
        raise CommandError(
            f"energy_mj cannot be measured here: there are no energy counters in {root}. Intel and AMD processors "
            "under Linux have them, most virtual machines do not; take energy_mj out of objectives and constraints, "
            "or search on such a machine"
        )
    counters = EnergyCounters(domains=domains)
    try:
        counters.read()
    except OSError as error:
        raise CommandError(
            f"energy_mj cannot be measured here: {error.filename}: {error.strerror}; "
            f"`sudo chmod a+r {root}/intel-rapl:*/energy_uj` allows it until the next start"
        ) from error
    return counters


def check_counted(runtime: Part) -> None:
    """Raise TrialError where a runtime computes elsewhere than on the processor, whose energy alone is counted."""
    device = dict(runtime.settings).get("device", "cpu")
    if device != "cpu" and not (device == "auto" and not torch.cuda.is_available()):
        raise TrialError(
            f"energy_mj counts what the processor and its memory use, and {runtime.name} computes on {device}; "
            "take device: cpu, or take energy_mj out of objectives and constraints"
        )


def measure_energy(
    open_session: Callable[[], Callable[[], object]],
    counters: EnergyCounters,
    *,
    seconds: float = 0.5,
    clock: Callable[[], float] = time.perf_counter,
) -> Centre:
    """Return the millijoules that one call costs the processor, idle power included, over `seconds` of calls.

    The interval is that of stretches of 50 ms or at least one call, and holds what differed between them
    only: neither other sessions, nor what the counters themselves are off by. A call as long as all
    of them gives a value without an interval.
    """
    call = open_session()
    for _ in range(_WARMUP_CALLS):
        call()
    began, spent, calls = clock(), list[float](), list[int]()
    while not spent or clock() < began + seconds:
        energy, count = _stretch(call, counters, clock, min(_STRETCH_S, seconds))
        spent.append(energy)
        calls.append(count)
    costs, value = centre_of(np.divide(spent, calls)), sum(spent) / sum(calls)
    return Centre(value=value, low=min(value, costs.low), high=max(value, costs.high))


def _stretch(
    call: Callable[[], object], counters: EnergyCounters, clock: Callable[[], float], seconds: float
) -> tuple[float, int]:
    """Return the millijoules of a stretch of calls, at least one, and how many they were."""
    count, before, end = 0, counters.read(), clock() + seconds
    while count == 0 or clock() < end:
        call()
        count += 1
    return counters.spent_mj(before, counters.read()), count


def _counts(domain: Path) -> bool:
    """Tell whether a domain is a package or memory; cores are part of their package."""
    name = domain / "name"
    return name.is_file() and name.read_text(encoding="utf-8").strip().startswith(("package", "dram"))


def _number(path: Path) -> int:
    return int(path.read_text(encoding="utf-8"))
