"""Foresight: what of a trial is known before it is trained, for a sampler that asks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from beats_search.records.objective import Constraint, Objective
from beats_search.records.plan import TrialPlan

BEST: Final[Mapping[str, float]] = {"accuracy": 1.0}
"""The best value of each objective that only training tells, where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Foresight:
    """What counts in a run, and what is known of a plan before it is trained.

    `known` returns the values of those objectives and constrained quantities by name that do not
    depend on training (never accuracy); it takes up to seconds for a new structure, and may raise
    any Exception for a plan that cannot be built. `cost` is the relative cost, above 0, of training
    a plan given what is stored already, `query_cost` that of a call of `known` on the same scale.
    `decides` tells of a knob, by its path, whether the values may depend on it: what is known of a plan
    is known of all that differ in other knobs alone. `reference_point` is that of the hypervolume, by
    objective.
    """

    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    reference_point: Mapping[str, float]
    known: Callable[[TrialPlan], Mapping[str, float]]
    cost: Callable[[TrialPlan], float]
    query_cost: float = 0.0
    decides: Callable[[str], bool] = lambda _: True

    def keeps_limits(self, known: Mapping[str, float]) -> bool:
        """Tell whether the limits on known quantities hold."""
        return all(limit.allows(known[limit.name]) for limit in self.constraints if limit.name in known)
