"""Outlook: objectives over a pool of plans in, the gain in hypervolume to expect of each plan out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from beats_search.search import improvement
from beats_search.search.frontier.codes import Indices
from beats_search.search.frontier.knowledge import Foretold, Quantity, Trained
from beats_search.search.frontier.surrogates import log_mean, normal_nodes
from beats_search.search.improvement import Array


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outlook:
    """`front` (m, d) and `reference` (d,) are gains in the order of the objectives.

    One objective, if possible one that training tells, is integrated in closed form; others that are
    not exact stand at equally likely cases. `log_odds` (n,) is the logarithm of the probability that
    training a plan succeeds within the limits, and of what is believed in it before any trial.
    """

    objectives: Sequence[Quantity]
    front: Array
    reference: Array
    log_odds: Array

    def expected(self, index: Indices, *, asked: bool) -> Array:
        """Return log expected gains (n,) of some plans; `asked`: what is foretold of them is exact."""
        open_ones = self._open(asked=asked)
        cases = normal_nodes(len(open_ones))
        return log_mean([self._log_gain(index, dict(zip(open_ones, case, strict=True))) for case in cases])

    def hopeful(self, index: Indices, deviations: float) -> Array:
        """Return log expected gains (n,) if all that is foretold turns out so many deviations better than expected."""
        return self._log_gain(index, {column: deviations for column in self._others if self._is_foretold(column)})

    def daring(self, index: Indices, deviations: float) -> Array:
        """Return the gains (n,) if every objective turns out so many deviations better than expected."""
        order = [*self._others, self._integrated]
        values = np.array([self.objectives[column].at(index, deviations) for column in order]).T
        return improvement.improvement(values[:, :-1], values[:, -1], self.front[:, order], self.reference[order])

    def learn(self, index: int, values: Mapping[int, float]) -> None:
        """Take in the answer for a plan: values by the number of the objective."""
        for column, value in values.items():
            objective = self.objectives[column]
            if isinstance(objective, Foretold):
                objective.learn(index, value)

    @property
    def _integrated(self) -> int:
        trained = [column for column, item in enumerate(self.objectives) if isinstance(item, Trained)]
        return trained[0] if trained else len(self.objectives) - 1

    @property
    def _others(self) -> list[int]:
        return [column for column in range(len(self.objectives)) if column != self._integrated]

    def _is_foretold(self, column: int) -> bool:
        return isinstance(self.objectives[column], Foretold)

    def _open(self, *, asked: bool) -> list[int]:
        return [column for column in self._others if not asked or not self._is_foretold(column)]

    def _log_gain(self, index: Indices, nodes: Mapping[int, float]) -> Array:
        order = [*self._others, self._integrated]
        certain = [self.objectives[column].at(index, nodes.get(column, 0.0)) for column in order[:-1]]
        last = self.objectives[order[-1]]
        gain = improvement.log_expected(
            np.array(certain).reshape(len(order) - 1, len(index)).T,
            last.mean[index] if isinstance(last, Trained) else last.at(index, 0.0),
            last.deviation(index),
            self.front[:, order],
            self.reference[order],
            clip=last.clip if isinstance(last, Trained) else None,
            cap=last.cap if isinstance(last, Trained) else np.inf,
        )
        return np.asarray(gain + self.log_odds[index])
