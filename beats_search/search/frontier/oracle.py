"""Oracle: a row of codes in, what its owner knows of that plan before training out."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Protocol, TypeAlias, final

import numpy as np

from beats_search.records.part import Scalar
from beats_search.records.plan import TrialPlan
from beats_search.search.domain import Domain
from beats_search.search.foresight import BEST
from beats_search.search.frontier.codes import Codes, Mask
from beats_search.search.improvement import Array
from beats_search.space.draw import Replay, Suggest
from beats_search.space.knobs import Choice

Params: TypeAlias = Mapping[str, Any]

_REMEMBERED: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is known of a plan: values by name, and whether the limits on them hold."""

    values: Mapping[str, float]
    allowed: bool = True


class Oracle(Protocol):
    """Knows plans by their knobs."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the objectives, in the study's order."""

    def best(self) -> Mapping[str, float]:
        """Return the best value of each objective that has one, by name."""

    def ask(self, params: Params) -> Answer | None:
        """Return what is known of a plan, None for one that cannot be built."""

    def allows(self, values: Mapping[str, float]) -> bool:
        """Tell whether a plan of which so much is known keeps the limits."""

    def decisive(self, names: Sequence[str]) -> Mask:
        """Tell of knobs (k,) whether an answer may depend on them."""

    def decided(self, known: frozenset[str]) -> frozenset[str]:
        """Return the names of the study's constraints that need no model beside those of the objectives."""

    def cost(self, params: Params) -> float:
        """Return the relative cost of training a plan, above 0."""

    def used(self, codes: Codes, rows: Array) -> Array:
        """Return rows (n, k) with NaN for the knobs that a plan does not use."""

    def usual(self, codes: Codes) -> Array:
        """Return the row (k,) of what the reference has, NaN where it has nothing."""

    def reference(self, codes: Codes) -> Array | None:
        """Return the row (k,) of the plan that does the same as the reference, None where there is none."""

    def identity(self, params: Params) -> Hashable:
        """Return what is equal for plans that are the same."""


@final
@dataclass(frozen=True, eq=False)
class OfFunction:
    """An oracle of a function: a value or None for each objective, which depend on the knobs that it `decides` by."""

    names: tuple[str, ...]
    known: Callable[[dict[str, Any]], Sequence[float | None]] | None
    decides: Callable[[str], bool] = lambda _: True

    def best(self) -> Mapping[str, float]:
        """Return nothing: what a study's values are is not told."""
        return {}

    def ask(self, params: Params) -> Answer | None:
        """Ask the function; whatever it raises means that there is no such plan."""
        if self.known is None:
            return Answer(values={})
        try:
            values = tuple(self.known(dict(params)))
        except Exception:  # noqa: BLE001 - anything may go wrong in a user's function
            return None
        if len(values) != len(self.names):
            raise ValueError(f"known needs a value or None for each of {len(self.names)} objectives, got {values}")
        pairs = zip(self.names, values, strict=True)
        return Answer(values={name: float(value) for name, value in pairs if value is not None})

    def allows(self, values: Mapping[str, float]) -> bool:
        """Return True: what a study's constraints are about is not told."""
        del values
        return True

    def decisive(self, names: Sequence[str]) -> Mask:
        """Return what the owner says."""
        return np.array([self.decides(name) for name in names], dtype=bool)

    def decided(self, known: frozenset[str]) -> frozenset[str]:
        """Return none: what a study's constraints are about is not told."""
        del known
        return frozenset()

    def cost(self, params: Params) -> float:
        """Return 1: all plans cost the same."""
        del params
        return 1.0

    def used(self, codes: Codes, rows: Array) -> Array:
        """Return all: a study's common space has no conditions."""
        del codes
        return rows

    def usual(self, codes: Codes) -> Array:
        """Return nothing: a study has no reference."""
        return codes.row({})

    def reference(self, codes: Codes) -> Array | None:
        """Return None: a study has no reference."""
        del codes
        return None

    def identity(self, params: Params) -> Hashable:
        """Return the values."""
        return tuple(sorted(params.items(), key=lambda item: item[0]))


@final
@dataclass(frozen=True, slots=True)
class Memory:
    """What drawing plans has told: the knobs that a pattern of choices uses, and fingerprints of plans."""

    patterns: dict[Hashable, frozenset[str]] = field(default_factory=dict)
    identities: dict[Hashable, str] = field(default_factory=dict)


@final
@dataclass(frozen=True, eq=False)
class OfDomain:
    """An oracle of a domain: plans are drawn from it, and its foresight is asked."""

    domain: Domain
    names: tuple[str, ...]
    memory: "Memory"

    def best(self) -> Mapping[str, float]:
        """Return what holds for all trials of a space."""
        return BEST

    def ask(self, params: Params) -> Answer | None:
        """Ask the foresight; whatever it raises means that the plan cannot be built."""
        foresight = self.domain.foresight
        if foresight is None:
            return Answer(values={})
        try:
            values = {name: float(value) for name, value in foresight.known(self._plan(params)).items()}
        except Exception:  # noqa: BLE001 - building and measuring a plan may fail in any way
            return None
        return Answer(values=values, allowed=self.allows(values))

    def allows(self, values: Mapping[str, float]) -> bool:
        """Return what the foresight says, True without it."""
        foresight = self.domain.foresight
        return foresight is None or foresight.keeps_limits(values)

    def decisive(self, names: Sequence[str]) -> Mask:
        """Return what the foresight says, True without it."""
        foresight = self.domain.foresight
        return np.array([foresight is None or foresight.decides(name) for name in names], dtype=bool)

    def decided(self, known: frozenset[str]) -> frozenset[str]:
        """Return the limits on known quantities, as they are written."""
        foresight = self.domain.foresight
        limits = foresight.constraints if foresight else ()
        return frozenset(str(limit) for limit in limits if limit.name in known)

    def cost(self, params: Params) -> float:
        """Return what the foresight says; 1 without it, and for a plan that cannot be built: trying it tells why."""
        foresight = self.domain.foresight
        try:
            return 1.0 if foresight is None else foresight.cost(self._plan(params))
        except Exception:  # noqa: BLE001 - building a plan may fail in any way
            return 1.0

    def used(self, codes: Codes, rows: Array) -> Array:
        """Return rows (n, k) in which each plan has only the knobs that drawing it asks for."""
        choices = [column for column, name in enumerate(codes.names) if isinstance(self.domain[name], Choice)]
        found = rows.copy()
        for index, row in enumerate(rows):
            used = self._used(codes, row, tuple(row[choices]))
            found[index, [name not in used for name in codes.names]] = np.nan
        return found

    def usual(self, codes: Codes) -> Array:
        """Return what the domain says."""
        return codes.row(self.domain.usual)

    def reference(self, codes: Codes) -> Array | None:
        """Return the row of the values that the domain says."""
        if self.domain.reference is None:
            return None
        return np.asarray(self.used(codes, codes.row(self.domain.reference)[None])[0])

    def identity(self, params: Params) -> str:
        """Return the plan's fingerprint."""
        key = tuple(sorted(params.items(), key=lambda item: item[0]))
        if key not in self.memory.identities:
            self.memory.identities[key] = self._plan(params).fingerprint()
        return self.memory.identities[key]

    def _used(self, codes: Codes, row: Array, chosen: Hashable) -> frozenset[str]:
        """Return the knobs that a plan uses; which they are depends on its choices alone."""
        if chosen not in self.memory.patterns:
            noting = _Noting(self._fixed() | codes.params(row))
            self.domain.draw(noting)
            self.memory.patterns[chosen] = frozenset(noting.asked)
        return self.memory.patterns[chosen]

    def _plan(self, params: Params) -> TrialPlan:
        return self.domain.draw(Replay(self._fixed() | dict(params)))

    def _fixed(self) -> dict[str, Scalar]:
        return {knob.path: knob.labels[0] for knob in self.domain.knobs if isinstance(knob, Choice)}


def oracle_of(domain: Domain, names: tuple[str, ...]) -> OfDomain:
    """Return the oracle of a domain, which remembers what drawing its plans has told."""
    memory = _memory_of(domain.draw)
    if len(memory.identities) + len(memory.patterns) > _REMEMBERED:
        _memory_of.cache_clear()
    return OfDomain(domain, names, _memory_of(domain.draw))


@lru_cache(maxsize=4)
def _memory_of(draw: Callable[[Suggest], TrialPlan]) -> Memory:
    del draw
    return Memory()


@final
class _Noting:
    """A `Suggest` that answers recorded values and notes what it is asked."""

    def __init__(self, values: Mapping[str, Scalar]) -> None:
        self._replay = Replay(values)
        self.asked: list[str] = []

    def real(self, path: str, low: float, high: float, *, log: bool, step: float | None) -> float:
        self.asked.append(path)
        return self._replay.real(path, low, high, log=log, step=step)

    def integer(self, path: str, low: int, high: int, *, log: bool, step: int | None) -> int:
        self.asked.append(path)
        return self._replay.integer(path, low, high, log=log, step=step)

    def choice(self, path: str, labels: tuple[Scalar, ...]) -> int:
        self.asked.append(path)
        return self._replay.choice(path, labels)
