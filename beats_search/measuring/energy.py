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

from beats_search.records.errors import CommandError

_POWERCAP: Final = Path("/sys/class/powercap")
_WARMUP_CALLS: Final = 3
_UJ_PER_MJ: Final = 1000


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


def measure_energy(
    open_session: Callable[[], Callable[[], object]],
    counters: EnergyCounters,
    *,
    seconds: float = 0.5,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return the millijoules that one call costs the processor, idle power included, over `seconds` of calls."""
    call = open_session()
    for _ in range(_WARMUP_CALLS):
        call()
    calls, before, end = 0, counters.read(), clock() + seconds
    while calls == 0 or clock() < end:
        call()
        calls += 1
    return counters.spent_mj(before, counters.read()) / calls


def _counts(domain: Path) -> bool:
    """Tell whether a domain is a package or memory; cores are part of their package."""
    name = domain / "name"
    return name.is_file() and name.read_text(encoding="utf-8").strip().startswith(("package", "dram"))


def _number(path: Path) -> int:
    return int(path.read_text(encoding="utf-8"))
