"""Judging: a history and answers in, a way from any pool of plans to its outlook out."""

from typing import final

import numpy as np

from beats_search.search.frontier.asking import Asking
from beats_search.search.frontier.codes import Codes, Features
from beats_search.search.frontier.history import Ended, History
from beats_search.search.frontier.knowledge import Foretold, Quantity, Trained, model_of
from beats_search.search.frontier.outlook import Outlook
from beats_search.search.frontier.surrogates import learn, limits, log_share, log_within, share, success
from beats_search.search.improvement import Array, bar, front_of


@final
class Judge:
    """Models of all that counts, fitted once; `corner` (d,) is the reference point in gains."""

    def __init__(self, codes: Codes, history: History, asking: Asking, signs: Array, corner: Array) -> None:
        """Fit all models."""
        self._codes, self._history, self._asking, self._signs, self._corner = codes, history, asking, signs, corner
        self._known = asking.known()
        self._caps = asking.caps()
        self._trained_ones = [column for column in range(len(signs)) if column not in self._known]
        self._foretold = {column: model_of(codes, asking.values(column)) for column in self._known}
        bars = self._bars()
        self._trained = {column: learn(history, codes, column, bars[:, column]) for column in self._trained_ones}
        self._success = success(history, codes)
        self._limits = limits(history, codes, asking.decided())
        self._admission = share(codes, *asking.examples())
        self._front = front_of(np.vstack([history.points, self._expected_of_running()]), corner)

    def outlook(self, rows: Array) -> Outlook:
        """Return what is known and believed of a pool of plans (n, k)."""
        features = self._codes.features(rows)
        asked = self._asking.answered(rows)
        odds = log_share(self._success, features) + log_within(self._limits, features)
        odds += self._asking.log_belief(rows) + np.where(asked, 0.0, log_share(self._admission, features))
        decisive = self._codes.features(self._asking.decisive(rows))
        quantities = [
            self._trained_at(column, features) if column in self._trained else self._foretold_at(column, rows, decisive)
            for column in range(len(self._signs))
        ]
        return Outlook(objectives=quantities, front=self._front, reference=self._corner, log_odds=odds)

    def _trained_at(self, column: int, features: Features) -> Quantity:
        learned = self._trained[column]
        belief = learned.at(features)
        return Trained(belief.mean, belief.deviation, learned.clip, float(self._caps[column]))

    def _foretold_at(self, column: int, rows: Array, features: Features) -> Quantity:
        quantity = Foretold(self._foretold[column], features, float(self._signs[column]))
        for index, value in enumerate(self._asking.told(rows, column)):
            if value is not None:
                quantity.know(index, value)
        return quantity

    def _bars(self) -> Array:
        """Return the gains (n, d) that trials were to exceed, as far as it is known: by the front, else the middle."""
        finished = self._history.gains[self._history.where(Ended.FINISHED)]
        bars = np.tile(np.median(finished, axis=0), (len(self._history.rows), 1))
        if len(self._trained_ones) == 1:
            order = [*self._known, *self._trained_ones]
            front = front_of(self._history.points, self._corner)[:, order]
            certain = self._known_gains()[:, self._known]
            told = ~np.isnan(certain).any(axis=1)
            bars[told, order[-1]] = bar(certain[told], front, self._corner[order])
        return bars

    def _known_gains(self) -> Array:
        """Return the gains (n, d) of trials that were known before training, NaN for others."""
        values = [self._asking.told(self._history.rows, column) for column in range(len(self._signs))]
        return np.asarray(self._signs * np.array(values, dtype=float).T)

    def _expected_of_running(self) -> Array:
        """Return the points (m, d) that running trials are believed to reach."""
        running = self._history.where(Ended.RUNNING)
        found = self._known_gains()[running]
        features = self._codes.features(self._history.rows[running])
        for column, learned in self._trained.items():
            found[:, column] = np.minimum(learned.clip.inverse(learned.at(features).mean), self._caps[column])
        return np.asarray(found[~np.isnan(found).any(axis=1)])
