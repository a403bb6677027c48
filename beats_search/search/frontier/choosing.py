"""Choosing: a history and an oracle in, the row to try next out, and what was asked on the way.

What is known before training is exact once it has been asked. Asking takes up to seconds, so it is
done where a good answer would change the choice: a model of the known values ranks the plans that
have not been asked for by what they would gain at an optimistic value (an upper confidence bound;
Srinivas et al. 2010), and learns from each answer, until what has been asked for is better.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, final

import moocore
import numpy as np

from beats_search.search.frontier.asking import Asking
from beats_search.search.frontier.codes import Codes, Indices, Mask
from beats_search.search.frontier.history import Ended, History
from beats_search.search.frontier.judging import Judge
from beats_search.search.frontier.oracle import Oracle
from beats_search.search.frontier.outlook import Outlook
from beats_search.search.frontier.pool import apartness, around, distinct, kin
from beats_search.search.frontier.surrogates import recent
from beats_search.search.improvement import Array

_FEWEST: Final = 2
_COMPARED: Final = 500
_PRICED: Final = 40
_CENTRES: Final = 30
_CLIMBED: Final = 5
_CLOSE: Final = 150
_KEPT: Final = 150
_OPEN: Final = 200
_HOPE: Final = 2.5
"""A plan is asked for if it would be the best one were its known values so many deviations better than expected."""
_DARING: Final = 2.0
_SHORT: Final = 20
_MARGIN: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a search proceeds; the part `frontier` says what each number means."""

    startup: int
    start_queries: int
    queries: int
    pool: int
    explore_every: int
    cooling: int
    belief: int


@final
class Choosing:
    """One proposal. `signs` (d,) turn values into gains; `corner` is the reference point in gains, if there is one."""

    def __init__(  # noqa: PLR0913 - one proposal, made in one place
        self,
        codes: Codes,
        oracle: Oracle,
        history: History,
        *,
        signs: Array,
        corner: Array | None,
        pace: Pace,
        rng: np.random.Generator,
    ) -> None:
        """Begin with what is known."""
        self.asking = Asking(codes, oracle, history, signs, pace.belief)
        self._codes, self._oracle, self._history, self._signs = codes, oracle, history, signs
        self._pace, self._rng = pace, rng
        self._corner = _worst(history, signs) if corner is None else corner

    def choose(self) -> Array:
        """Return the row to try next."""
        if not self.asking.answers:
            self._ask_somewhere(self._pace.queries if self.asking.refused else self._pace.start_queries)
        tried, finished = len(self._history.rows), int(self._history.where(Ended.FINISHED).sum())
        if tried < self._pace.startup or finished < _FEWEST:
            return self._spread_out()
        if tried % self._pace.explore_every == 0:
            return self._most_uncertain()
        return self._most_promising()

    def _ask_somewhere(self, count: int) -> None:
        """Ask for plans all over the space, and as many like those tried; only once if nothing is known of any."""
        near, rows = self._kin(self._tried()), self._random(count)
        for row in np.vstack([near[: count // 2], rows])[:count]:
            answer = self.asking.ask(row)
            if answer is not None and not answer.values:
                return

    def _spread_out(self) -> Array:
        """Return a plan far from those tried, in the band of the first known value tried least for its cost.

        Every second one is like the best so far, which is the reference at first, but for one part, or at
        least trained like it: what a person left in the middle is seldom the worst, and a structure that
        was trained badly tells little.
        """
        known = self.asking.known()
        if known and not self.asking.all_decide and not self.asking.fresh:
            self._ask_near()
        rows = self._unexplored()
        if (len(self._history.rows) + len(self._history.bare)) % 2:
            rows = self._like_the_best(rows)
        values = self.asking.told(rows, known[0]) if known else [None]
        if None in values:
            return self._farthest(rows)
        edges = np.quantile(np.array(values, dtype=float), np.linspace(0, 1, self._pace.startup + 1)[1:-1])
        bands = np.digitize(np.array(values, dtype=float), edges)
        tried = self.asking.told(self._history.rows, known[0])
        seen = np.array([value for value in tried if value is not None], dtype=float)
        visits = np.bincount(np.digitize(seen, edges), minlength=self._pace.startup)
        order = [band for band in self._rng.permutation(self._pace.startup) if (bands == band).any()]
        prices = {band: self._thrift * self._middle_cost(rows[bands == band]) for band in order}
        return self._farthest(rows[bands == min(order, key=lambda band: np.log(visits[band] + 1) + prices[band])])

    def _ask_near(self) -> None:
        """Ask for plans like those tried: where training is shared they cost little."""
        near = self._kin(self._tried())
        for row in near[~self.asking.answered(near)][: self._pace.queries]:
            self.asking.ask(row)

    def _tried(self) -> Array:
        """Return the rows of what was tried, the reference as far as it has any."""
        usual = self._oracle.usual(self._codes)
        return np.vstack([self._history.rows, *([usual] if not np.isnan(usual).all() else [])])

    def _like_the_best(self, rows: Array) -> Array:
        """Return those that differ in one part from what did best so far in what training decides, or train like it."""
        trained = [column for column in range(len(self._signs)) if column not in self.asking.known()]
        if not trained or self.asking.all_decide:
            return rows
        finished = self._history.where(Ended.FINISHED)
        gains = np.where(finished, self._history.gains[:, trained[0]], -np.inf)
        beaten = gains.max(initial=-np.inf) > self._history.bare[:, trained[0]].max(initial=-np.inf)
        best = self._history.rows[int(gains.argmax())] if beaten else self._oracle.usual(self._codes)
        near = self._kin(best[None])
        near = near[[allowed is True for allowed in self.asking.allows(near)]] if len(near) else near
        alike = self._new(self._used(self.asking.trained_like(rows, best)))
        return next(found for found in (near, alike, rows) if len(found))

    def _middle_cost(self, rows: Array) -> float:
        return float(np.median(self._log_costs(rows[:: -(-len(rows) // _SHORT)])))

    def _farthest(self, rows: Array) -> Array:
        """Return the plan that is farthest from those tried, of those believed in, for its cost."""
        some = rows[np.sort(self._rng.permutation(len(rows))[:_COMPARED])]
        tried = self._history.rows[recent(len(self._history.rows), _COMPARED)]
        apart = apartness(self._codes.rings(some), self._codes.rings(tried), self._rng)
        order = np.argsort(-apart, kind="stable")[:: -(-len(some) // _PRICED)]
        worth = np.log(apart[order]) + self.asking.log_belief(some[order])
        return np.asarray(some[order[np.argmax(worth - self._thrift * self._log_costs(some[order]))]])

    def _most_uncertain(self) -> Array:
        """Return the plan that would gain most for its cost if it came out much better than expected."""
        rows = self._unexplored()
        judge = Judge(self._codes, self._history, self.asking, self._signs, self._corner)
        gains = judge.outlook(rows).daring(np.arange(len(rows)), _DARING)
        order = np.argsort(-gains, kind="stable")[:_PRICED]
        if gains[order[0]] <= 0:
            return self._farthest(rows)
        with np.errstate(divide="ignore"):
            return np.asarray(
                rows[order[np.argmax(np.log(gains[order]) - self._thrift * self._log_costs(rows[order]))]]
            )

    def _unexplored(self) -> Array:
        """Return the allowed plans that may improve on the corner; without any, allowed or else random ones."""
        known = self.asking.known()
        allowed = self._allowed() if known else self._random(self._pace.start_queries)
        values = [self.asking.told(allowed, column) for column in known]
        gains = self._signs[known] * np.array(values, dtype=float).reshape(len(known), len(allowed)).T
        better = ~(gains <= self._corner[known]).any(axis=1)
        for rows in (allowed[better], allowed, self._random(self._pace.pool)):
            if len(rows):
                return rows
        return self._used(self._codes.random(self._rng, 1))  # all has been tried

    def _allowed(self) -> Array:
        """Return what was asked for and keeps the limits, and random plans of which the same is known."""
        asked = self.asking.allowed()
        if self.asking.all_decide:
            return asked
        others = np.vstack([self._random(self._pace.pool), self._kin(self._tried())])
        return np.vstack([asked, others[self.asking.answered(others)]])

    def _most_promising(self) -> Array:
        """Return the plan with the most expected gain for its cost, of a pool that is refined once."""
        judge = Judge(self._codes, self._history, self.asking, self._signs, self._corner)
        rows = self._promising(judge, self._pool())
        near = self._used(around(self._codes, rows[:_CLIMBED], self._rng, _CLOSE))
        rows = self._new(np.vstack([rows, near]))
        if not len(rows):
            return self._farthest(self._unexplored())
        outlook = judge.outlook(rows)
        self._ask_where_it_matters(rows, outlook)
        return self._best(rows, outlook)

    def _pool(self) -> Array:
        """Return what has been asked before, neighbours of the front, and random plans."""
        kept = self._history.kept
        ahead = moocore.is_nondominated(self._history.gains[kept], maximise=True) if kept.any() else np.empty(0, bool)
        centres = self._history.rows[kept][ahead]
        centres = centres[self._rng.permutation(len(centres))[:_CENTRES]]
        near = self._used(around(self._codes, centres, self._rng))
        asked = self.asking.allowed()[-self._pace.pool :]
        return self._new(np.vstack([asked, near, self._kin(centres), self._random(self._pace.pool)]))

    def _promising(self, judge: Judge, rows: Array) -> Array:
        """Return the rows of a pool with the most to expect, best first: of those asked, and of those that may be."""
        if not len(rows):
            return rows
        outlook = judge.outlook(rows)
        exact = self._exact(rows)
        asked, open_ones = np.flatnonzero(exact), np.flatnonzero(~exact)
        scores = np.empty(len(rows))
        scores[asked] = outlook.expected(asked, asked=True)
        scores[open_ones] = outlook.hopeful(open_ones, _HOPE)
        order = np.argsort(-scores, kind="stable")
        kept = np.where(exact[order], np.cumsum(exact[order]) <= _KEPT, np.cumsum(~exact[order]) <= _OPEN)
        return np.asarray(rows[order[kept]])

    def _ask_where_it_matters(self, rows: Array, outlook: Outlook) -> None:
        """Ask for the plans with most to hope for, until none has more than the best that has been asked for."""
        exact = self._exact(rows)
        best = outlook.expected(np.flatnonzero(exact), asked=True).max(initial=-np.inf)
        for _ in range(self._pace.queries):
            open_ones = np.flatnonzero(~exact)
            if not len(open_ones):
                return
            hopes = outlook.hopeful(open_ones, _HOPE)
            if not hopes.max() > best:
                return
            chosen = int(open_ones[np.argmax(hopes)])
            exact[chosen] = True
            answer = self.asking.ask(rows[chosen])
            if answer is None:
                continue
            outlook.learn(
                chosen, {column: answer.values[name] for column, name in self._names if name in answer.values}
            )
            if answer.allowed:
                best = max(best, float(outlook.expected(np.array([chosen]), asked=True)[0]))

    def _best(self, rows: Array, outlook: Outlook) -> Array:
        """Return the row with the most to expect for its cost: an allowed one if there is any, and no repeat."""
        exact = self._exact(rows)
        unknown = not self.asking.known()
        allowed = np.array([unknown if found is None else found for found in self.asking.allows(rows)], dtype=bool)
        index = next(found for found in (exact & allowed, ~exact, exact) if found.any()).nonzero()[0]
        scores = outlook.expected(index, asked=bool(exact[index[0]]))
        order = index[np.argsort(-scores, kind="stable")]
        if not np.isfinite(scores.max()):
            return self._farthest(rows[index])
        taken = {self._oracle.identity(self._codes.params(row)) for row in self._history.rows}
        first = rows[self._by_cost(rows, order, np.sort(scores)[::-1])]
        return next((row for row in first if self._identity(row) not in taken), first[0])

    def _by_cost(self, rows: Array, order: Indices, scores: Array) -> Indices:
        """Return an order whose first few are sorted by expected gain per cost, which counts less and less."""
        if not self._thrift:
            return order
        costs = self._log_costs(rows[order[:_SHORT]])
        first = order[: len(costs)][np.argsort(self._thrift * costs - scores[: len(costs)], kind="stable")]
        return np.append(first, order[len(costs) :])

    def _log_costs(self, rows: Array) -> Array:
        return np.log([self._oracle.cost(self._codes.params(row)) for row in rows])

    @property
    def _thrift(self) -> float:
        """The power of a plan's cost by which its gain is divided."""
        return max(0.0, 1.0 - len(self._history.rows) / self._pace.cooling)

    def _exact(self, rows: Array) -> Mask:
        """Return for which rows all is known that can be before training."""
        if not self.asking.known():
            return np.ones(len(rows), dtype=bool)
        return self.asking.answered(rows)

    def _identity(self, row: Array) -> Hashable:
        return self._oracle.identity(self._codes.params(row))

    @property
    def _names(self) -> list[tuple[int, str]]:
        return list(enumerate(self._oracle.names))

    def _new(self, rows: Array) -> Array:
        refused = np.array([allowed is False for allowed in self.asking.allows(rows)], dtype=bool)
        return distinct(rows[~refused], self._history.taken)

    def _random(self, count: int) -> Array:
        return self._new(self._used(self._codes.random(self._rng, count)))

    def _kin(self, centres: Array) -> Array:
        return self._new(self._used(kin(self._codes, centres, self._rng)))

    def _used(self, rows: Array) -> Array:
        return self._oracle.used(self._codes, rows)


def _worst(history: History, signs: Array) -> Array:
    """Return a corner a tenth of their range below all gains seen."""
    seen = history.gains[history.where(Ended.FINISHED)]
    if not len(seen):
        return np.full(len(signs), -np.inf)
    low, high = seen.min(axis=0), seen.max(axis=0)
    return np.asarray(low - _MARGIN * np.maximum(high - low, 1e-12))
