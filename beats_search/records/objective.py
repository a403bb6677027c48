"""Objectives and constraints: which measured values count, which way is better, and the limits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from beats_search.records.outcome import Finished

Direction = Literal["maximize", "minimize"]

DIRECTIONS: Final[Mapping[str, Direction]] = {
    "accuracy": "maximize",
    "latency_ms": "minimize",
    "size_kb": "minimize",
    "macs": "minimize",
    "energy_mj": "minimize",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A measured value by name and the direction that is better; the direction is the name's own."""

    name: str
    direction: Direction

    def __post_init__(self) -> None:
        """Refuse an unknown name, or a direction in which no one would want to go."""
        if self.name not in DIRECTIONS:
            raise ValueError(f"an objective is one of {', '.join(DIRECTIONS)}, got {self.name!r}")
        if self.direction != DIRECTIONS[self.name]:
            raise ValueError(f"{self.name} is to {DIRECTIONS[self.name]}, got {self.direction!r}")

    @property
    def maximize(self) -> bool:
        """Whether more is better."""
        return self.direction == "maximize"


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """A limit on a measured value, `size_kb <= 500`; it need not be an objective."""

    name: str
    sign: Literal["<=", ">="]
    bound: float

    def __post_init__(self) -> None:
        """Refuse a limit on something that is not measured."""
        if self.name not in DIRECTIONS:
            raise ValueError(f"a constraint is on one of {', '.join(DIRECTIONS)}, got {self.name!r}")

    def violation(self, outcome: Finished) -> float:
        """Return by how much a finished trial breaks the limit; 0 or less when it holds."""
        return self._excess(outcome.value(self.name))

    def holds(self, outcome: Finished) -> bool:
        """Tell whether a finished trial keeps the limit."""
        return self.violation(outcome) <= 0

    def allows(self, value: float) -> bool:
        """Tell whether the limit lets a value be."""
        return self._excess(value) <= 0

    def _excess(self, value: float) -> float:
        return value - self.bound if self.sign == "<=" else self.bound - value

    def __str__(self) -> str:
        """Return the limit as a user would write it."""
        return f"{self.name} {self.sign} {self.bound:g}"
