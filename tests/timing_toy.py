"""A machine on a clock that the test turns: its sessions scatter, drift, wait, and share their core."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from beats_search.measuring.blocks import Clocks, Protocol
from beats_search.measuring.yardstick import Yardstick


@dataclass
class Bench:
    """A machine whose calls take as long as the test says.

    Each session has a pace of its own, the machine gets slower by `drift` a second, and while another
    process holds its core (`busy`, in seconds of the clock) nothing runs. While another shares it
    (`shared`), arithmetic takes `arithmetic` times as long, and a session as it says. From `crowded_at` on,
    others keep half of all cores busy.
    """

    noise: Callable[[np.random.Generator], float] = lambda _: 1.0
    drift: float = 0.0
    busy: tuple[tuple[float, float], ...] = ()
    shared: tuple[tuple[float, float], ...] = ()
    arithmetic: float = 1.6
    crowded_at: float = math.inf
    now: float = 0.0
    ran: float = 0.0
    opened: list[str] = field(default_factory=list)
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))

    def __post_init__(self) -> None:
        """Hold a yardstick against its own clock."""
        self.yardstick = Yardstick(
            clock=lambda: self.now, work=lambda: self.work(3e-5 * self.slowness(self.arithmetic))
        )

    @property
    def clocks(self) -> Clocks:
        return Clocks(
            wall=lambda: self.now,
            processor=lambda: self.ran,
            others=lambda: max(0.0, self.now - self.crowded_at) / 2,
            yardstick=self.yardstick,
        )

    def learn_its_pace(self) -> None:
        """Hold the yardstick for 20 seconds."""
        for _ in range(100):
            self.now += 0.2
            self.yardstick.read()

    def work(self, seconds: float) -> None:
        self.ran += seconds
        for began, ended in self.busy:
            if began <= self.now < ended:
                self.now = ended
        self.now += seconds

    def slowness(self, slowed: float) -> float:
        return slowed if any(began <= self.now < ended for began, ended in self.shared) else 1.0

    def session(self, name: str, seconds: float, slowed: float = 1.0) -> Callable[[], Callable[[], None]]:
        def open_session() -> Callable[[], None]:
            self.opened.append(name)
            pace = seconds * self.noise(self.random)
            return lambda: self.work(pace * (1 + self.drift * self.now) * self.slowness(slowed))

        return open_session


def lognormal(sigma: float) -> Callable[[np.random.Generator], float]:
    """Return what makes the pace of a session: scattered by `sigma` in logarithms."""
    return lambda random: math.exp(sigma * random.standard_normal())


def as_seen(random: np.random.Generator) -> float:
    """Return the pace of a session as two sessions of one file were seen to differ."""
    return random.uniform(0.78, 1.22)


def bursts(random: np.random.Generator) -> tuple[tuple[float, float], ...]:
    """Return when another process holds the core: for 2-60 ms, about 5 times a second."""
    starts = np.cumsum(random.exponential(0.2, size=40))
    return tuple((float(start), float(start + random.uniform(0.002, 0.06))) for start in starts)


def exactly(count: int) -> Protocol:
    """Return rules by which so many rounds are timed, where each takes 10 to 40 ms."""
    return Protocol(min_rounds=count, least_rounds=count, budget_s=0.04 * count, half_width=math.inf)
