"""Asking: an oracle and the answers of earlier proposals in, answers of this one out, each asked for once."""

from typing import final

import numpy as np

from beats_search.search.frontier.codes import Codes
from beats_search.search.frontier.history import History
from beats_search.search.frontier.oracle import Answer, Oracle
from beats_search.search.improvement import Array


@final
class Asking:
    """What is known of plans before training. `answers` are all, `fresh` those that this proposal asked for."""

    def __init__(self, codes: Codes, oracle: Oracle, history: History, signs: Array) -> None:
        """Begin with what earlier proposals asked."""
        self.answers = dict(history.asked)
        self.fresh: dict[bytes, Answer | None] = {}
        self._codes = codes
        self._oracle = oracle
        self._history = history
        self._signs = signs

    def ask(self, row: Array) -> Answer | None:
        """Return what is known of a plan, None for one that cannot be built."""
        key = row.tobytes()
        if key not in self.answers:
            self.answers[key] = self.fresh[key] = self._oracle.ask(self._codes.params(row))
        return self.answers[key]

    def known(self) -> list[int]:
        """Return the numbers of the objectives that have been told of any plan."""
        names = self._names()
        return [column for column, name in enumerate(self._oracle.names) if name in names]

    def values(self, column: int) -> dict[bytes, float]:
        """Return an objective's values by row: answers, and without one what was measured after training."""
        name = self._oracle.names[column]
        found = {
            row.tobytes(): float(self._signs[column] * gains[column])
            for row, gains in zip(self._history.rows, self._history.gains, strict=True)
            if not np.isnan(gains[column])
        }
        told = {row: answer.values.get(name) for row, answer in self.answers.items() if answer is not None}
        return found | {row: value for row, value in told.items() if value is not None}

    def value(self, row: Array, column: int) -> float | None:
        """Return the answer for one objective of a plan, None without one."""
        answer = self.answers.get(row.tobytes())
        return None if answer is None else answer.values.get(self._oracle.names[column])

    def allowed(self) -> Array:
        """Return the rows (n, k) that have an answer, keep the limits, and were not tried, oldest first."""
        found = [
            np.frombuffer(row)
            for row, answer in self.answers.items()
            if answer is not None and answer.allowed and row not in self._history.taken
        ]
        return np.array(found).reshape(-1, len(self._codes.names))

    def examples(self) -> tuple[Array, Array]:
        """Return all rows asked for (n, k), and 1 for those that can be built within the limits, else 0 (n,)."""
        rows = np.array([np.frombuffer(row) for row in self.answers]).reshape(-1, len(self._codes.names))
        fine = [float(answer is not None and answer.allowed) for answer in self.answers.values()]
        return rows, np.array(fine)

    def decided(self) -> frozenset[str]:
        """Return the names of the study's constraints that answers decide before training."""
        return self._oracle.decided(self._names())

    def _names(self) -> frozenset[str]:
        told = (answer for answer in self.answers.values() if answer is not None)
        return frozenset(name for answer in told for name in answer.values)
