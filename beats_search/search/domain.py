"""Domain: a search space in, what samplers may know of it out: knobs, and a way from their values to a plan."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeAlias, cast

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from beats_search.records.part import Scalar
from beats_search.records.plan import TrialPlan
from beats_search.search.foresight import Foresight
from beats_search.space.draw import Replay, Suggest, count_plans, draw, grid_points, knobs
from beats_search.space.knobs import Choice, Range, SearchSpace

Params: TypeAlias = Mapping[str, Scalar]
"""Values of knobs by their dotted paths; knobs that the other values leave unused are absent."""

_FEW: Final = 2000
"""So many plans are drawn and compared in half a second."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Domain:
    """What may be proposed. `knobs` include the conditional ones.

    `draw` asks a `Suggest` for the knobs that count and returns the plan; `grid(points)` yields the
    values of all plans with `points` values a range; `count` is how many plans there are, None when
    a range is continuous. `foresight` is for samplers that ask what is known before training. `usual`
    are the values that the reference has, for knobs of which it has one; `reference` are values of all
    knobs with which a plan does what the reference does, None where there are none.
    """

    knobs: tuple[Range | Choice, ...]
    draw: Callable[[Suggest], TrialPlan]
    grid: Callable[[int], Iterable[Params]]
    count: int | None
    foresight: Foresight | None = None
    usual: Params = field(default_factory=dict)
    reference: Params | None = None

    def __post_init__(self) -> None:
        """Refuse a path that means two things, because a study could not store it."""
        for knob in self.knobs:
            if distribution(knob) != distribution(self[knob.path]):
                raise ValueError(f"a knob needs a path of its own, got {knob.path} twice: {knob} and {self[knob.path]}")

    def __getitem__(self, path: str) -> Range | Choice:
        """Return the knob at a path; KeyError when there is none."""
        found = next((knob for knob in self.knobs if knob.path == path), None)
        if found is None:
            raise KeyError(path)
        return found

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return the knobs that leave a choice as Optuna's distributions, by path."""
        found = {knob.path: distribution(knob) for knob in self.knobs}
        return {path: item for path, item in found.items() if not item.single()}


def domain_of(space: SearchSpace) -> Domain:
    """Return what may be proposed from a space."""
    return Domain(
        knobs=knobs(space), draw=partial(draw, space), grid=partial(grid_points, space), count=_different(space)
    )


def _different(space: SearchSpace) -> int | None:
    """Return how many plans there are; of few, only those count that differ in what has an effect."""
    count = count_plans(space)
    if count is None or count > _FEW:
        return count
    return len({draw(space, Replay(point)).fingerprint() for point in grid_points(space, count)})


def distribution(knob: Range | Choice) -> BaseDistribution:
    """Return a knob as Optuna's distribution, equal to the one under which a trial stores its value."""
    match knob:
        case Choice(labels=labels):
            return CategoricalDistribution(labels)
        case Range(integer=True):
            return IntDistribution(int(knob.low), int(knob.high), log=knob.log, step=int(knob.step or 1))
        case Range():
            return FloatDistribution(knob.low, knob.high, log=knob.log, step=knob.step)


def value_at(knob: Range | Choice, share: float) -> Scalar:
    """Return the value of a knob at a share of its line in [0, 1).

    Every value of a choice or a range with steps has an equal part of the line; so has every factor
    of a logarithmic one.
    """
    if isinstance(knob, Choice):
        return knob.labels[int(share * len(knob.labels))]
    if knob.log and knob.integer:
        nearest = round(_between(knob.low - 0.5, knob.high + 0.5, share, log=True))
        return min(int(knob.high), max(int(knob.low), nearest))
    if knob.integer:
        step = int(knob.step or 1)
        return int(knob.low) + step * int(share * (int(knob.high - knob.low) // step + 1))
    if knob.step is not None:
        steps = round((knob.high - knob.low) / knob.step)
        return min(knob.high, knob.low + knob.step * int(share * (steps + 1)))
    return min(knob.high, max(knob.low, _between(knob.low, knob.high, share, log=knob.log)))


def difference(knob: Range | Choice, one: Scalar, other: Scalar) -> float:
    """Return how far two values of a knob are apart, 0…1: along the line of a range; of a choice, all or nothing."""
    if isinstance(knob, Choice):
        return float(one != other)
    return abs(_share(knob, cast("float", one)) - _share(knob, cast("float", other)))


def _share(knob: Range, value: float) -> float:
    if knob.log:
        return math.log(value / knob.low) / math.log(knob.high / knob.low)
    return (value - knob.low) / (knob.high - knob.low)


def _between(low: float, high: float, share: float, *, log: bool) -> float:
    return low * (high / low) ** share if log else low + share * (high - low)
