"""Neighbours: what the kernel has counted in, a clock of what other processes compute out."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

_STAT: Final = Path("/proc/stat")
_BUSY_FIELDS: Final = (0, 1, 2, 5, 6, 7)  # user, nice, system, interrupts of both kinds, and what a hypervisor took
_TICKS_PER_S: Final = 100


def clock_of_others(
    stat: Path = _STAT, own: Callable[[], float] = time.process_time, cores: int | None = None
) -> Callable[[], float]:
    """Return a clock that is as fast as time while others keep every core busy, and stands still while they rest.

    `own` tells the seconds that this process has computed on all cores; the machine's are from
    `stat`, in hundredths of a second. Where there is no such file it stands still: the load of the
    last minute, which other systems tell, is mostly what this process itself has just trained.
    """
    if not stat.exists():
        return lambda: 0.0
    count = cores or os.cpu_count() or 1
    return lambda: (_busy_s(stat) - own()) / count


def _busy_s(stat: Path) -> float:
    with stat.open(encoding="ascii") as lines:
        fields = lines.readline().split()[1:]
    return sum(int(fields[place]) for place in _BUSY_FIELDS) / _TICKS_PER_S
