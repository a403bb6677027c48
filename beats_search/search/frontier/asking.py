"""Asking: an oracle and the answers of earlier proposals in, answers of this one out, each asked for once.

What is known of a plan is known of all that differ from it only in knobs that it does not depend on.
An answer is a glance; what finished trials measured of the like replaces it. Otherwise a plan that a
glance made too fast would promise again, after each trial, what no trial of it keeps.
"""

from collections import Counter, defaultdict
from typing import Final, final

import numpy as np

from beats_search.search.frontier.codes import Codes, Mask
from beats_search.search.frontier.history import Ended, History
from beats_search.search.frontier.oracle import Answer, Oracle
from beats_search.search.frontier.prior import log_prior
from beats_search.search.improvement import Array

_TWICE: Final = 2


@final
class Asking:
    """What is known of plans before training.

    `answers` are all, by row without the knobs that none depends on, `refused` how many plans of such a
    row could not be built: one may have failed by chance. `fresh` is what this proposal asked for, by row.
    What is believed without an answer counts in full for the first `belief` trials, and then less and less.
    A plan that was not worth training stays so, and so are all of which the same is known: fronts only grow.
    """

    def __init__(self, codes: Codes, oracle: Oracle, history: History, signs: Array, belief: int = 0) -> None:
        """Begin with what earlier proposals asked."""
        self.fresh: dict[bytes, Answer | None] = {}
        self._codes = codes
        self._oracle = oracle
        self._history = history
        self._signs = signs
        self._belief = belief
        self._decisive = oracle.decisive(codes.names)
        self.answers: dict[bytes, Answer] = {}
        self.refused: Counter[bytes] = Counter()
        self._measured = self._means()
        self._spared = frozenset(self._keys(history.rows[history.where(Ended.SPARED)]))
        for row, answer in history.asked.items():
            self._note(np.frombuffer(row), answer)

    def ask(self, row: Array) -> Answer | None:
        """Return what is known of a plan, None for one that cannot be built."""
        if not self._settled(self._key(row), row):
            answer = self.fresh[row.tobytes()] = self._oracle.ask(self._codes.params(row))
            self._note(row, answer)
        return self.answers.get(self._key(row))

    def answered(self, rows: Array) -> Mask:
        """Tell of plans (n, k) whether there is an answer."""
        return np.array([self._settled(key, row) for key, row in zip(self._keys(rows), rows, strict=True)], dtype=bool)

    def allows(self, rows: Array) -> list[bool | None]:
        """Tell of plans (n, k) whether they can be built and keep the limits; None without an answer."""
        return [self._verdict(key, row) for key, row in zip(self._keys(rows), rows, strict=True)]

    @property
    def all_decide(self) -> bool:
        """Whether answers may depend on every knob."""
        return bool(self._decisive.all())

    def decisive(self, rows: Array) -> Array:
        """Return plans (n, k), or one (k,), without the knobs that no answer depends on."""
        return np.where(self._decisive, rows, np.nan)

    def trained_like(self, rows: Array, other: Array) -> Array:
        """Return plans (n, k) with the values of another one (k,) for the knobs that no answer depends on."""
        return np.where(self._decisive | np.isnan(other), rows, other)

    def log_belief(self, rows: Array) -> Array:
        """Return the logarithm of what is still believed in plans (n, k) without having been told."""
        if not self._belief:
            return np.zeros(len(rows))
        told = int(self._history.where(Ended.FINISHED, Ended.STOPPED, Ended.FAILED).sum())
        prior = log_prior(self._codes, rows, self._oracle.usual(self._codes), self._decisive)
        return np.asarray(self._belief / max(self._belief, told) * prior)

    def caps(self) -> Array:
        """Return the largest gains (d,) that there can be, infinite where nothing bounds them."""
        best = self._oracle.best()
        gains = [
            sign * best.get(name, sign * np.inf) for name, sign in zip(self._oracle.names, self._signs, strict=True)
        ]
        return np.array(gains)

    def known(self) -> list[int]:
        """Return the numbers of the objectives that have been told of any plan."""
        names = self._names()
        return [column for column, name in enumerate(self._oracle.names) if name in names]

    def values(self, column: int) -> dict[bytes, float]:
        """Return an objective's values by decisive row: answers, and without one what was measured after training."""
        name = self._oracle.names[column]
        found = {row: float(self._signs[column] * means[column]) for row, means in self._measured.items()}
        told = {row: answer.values.get(name) for row, answer in self.answers.items()}
        return found | {row: value for row, value in told.items() if value is not None}

    def told(self, rows: Array, column: int) -> list[float | None]:
        """Return the answers for one objective of plans (n, k), None without one."""
        name, answers = self._oracle.names[column], [self.answers.get(key) for key in self._keys(rows)]
        return [None if answer is None else answer.values.get(name) for answer in answers]

    def allowed(self) -> Array:
        """Return the rows (n, k) that were asked for, keep the limits, and were not tried, oldest first."""
        found = [
            np.frombuffer(row)
            for row, answer in self._asked().items()
            if answer is not None and answer.allowed and row not in self._history.taken
        ]
        rows = np.array(found).reshape(-1, len(self._codes.names))
        return rows[[key not in self._spared for key in self._keys(rows)]] if found else rows

    def examples(self) -> tuple[Array, Array]:
        """Return all rows asked for (n, k), and 1 for those that can be built within the limits, else 0 (n,)."""
        asked = self._asked()
        rows = np.array([np.frombuffer(row) for row in asked]).reshape(-1, len(self._codes.names))
        fine = [float(answer is not None and answer.allowed) for answer in asked.values()]
        return rows, np.array(fine)

    def decided(self) -> frozenset[str]:
        """Return the names of the study's constraints that answers decide before training."""
        return self._oracle.decided(self._names())

    def _names(self) -> frozenset[str]:
        return frozenset(name for answer in self.answers.values() for name in answer.values)

    def _asked(self) -> dict[bytes, Answer | None]:
        return dict(self._history.asked) | self.fresh

    def _note(self, row: Array, answer: Answer | None) -> None:
        if answer is None:
            self.refused[self._key(row)] += 1
        else:
            self.answers[self._key(row)] = self._corrected(self._key(row), answer)

    def _means(self) -> dict[bytes, Array]:
        """Return the mean gains (d,) of finished trials by decisive row."""
        groups: defaultdict[bytes, list[Array]] = defaultdict(list)
        for row, gains in zip(self._history.rows, self._history.gains, strict=True):
            if not np.isnan(gains).any():
                groups[self._key(row)].append(gains)
        return {key: np.mean(found, axis=0) for key, found in groups.items()}

    def _corrected(self, key: bytes, answer: Answer) -> Answer:
        """Return an answer with what was measured of the like in place of what was foretold."""
        if key not in self._measured:
            return answer
        means = dict(zip(self._oracle.names, self._signs * self._measured[key], strict=True))
        values = {name: float(means.get(name, value)) for name, value in answer.values.items()}
        return Answer(values=values, allowed=self._oracle.allows(values))

    def _verdict(self, key: bytes, row: Array) -> bool | None:
        if key in self._spared:
            return False
        answer = self.answers.get(key)
        if answer is not None:
            return answer.allowed
        return False if self._settled(key, row) else None

    def _settled(self, key: bytes, row: Array) -> bool:
        """Tell whether a plan needs no question: its like has an answer or failed twice, or it failed itself."""
        failed = row.tobytes()
        itself = failed in self.fresh or failed in self._history.asked
        return key in self.answers or itself or self.refused[key] >= _TWICE

    def _key(self, row: Array) -> bytes:
        return self.decisive(row).tobytes()

    def _keys(self, rows: Array) -> list[bytes]:
        return [row.tobytes() for row in self.decisive(rows)]
