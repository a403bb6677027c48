"""Knowledge: answers and beliefs in, each objective over a pool of plans out, exact or as a Gaussian.

All are gains: values to be maximized.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol, final

import numpy as np

from beats_search.search.clipping import Clip
from beats_search.search.frontier.codes import Codes, Features, Indices
from beats_search.search.frontier.gaussian_process import Process, fit
from beats_search.search.frontier.surrogates import recent
from beats_search.search.improvement import Array

_MOST: Final = 400
_SETTING: Final = 100
_EXACT: Final = 1e-9


class Quantity(Protocol):
    """One objective over a pool."""

    def at(self, index: Indices, node: float) -> Array:
        """Return the gains of some plans, `node` standard deviations better than expected where not exact."""

    def deviation(self, index: Indices) -> Array:
        """Return the standard deviations of their gains, above 0."""


@final
@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """An objective that only training tells: Gaussians of `mean` and `spread` (n,) of values drawn up by `clip`.

    No gain exceeds `cap`.
    """

    mean: Array
    spread: Array
    clip: Clip
    cap: float = math.inf

    def at(self, index: Indices, node: float) -> Array:
        """Return what lies `node` deviations above the means, as it is measured."""
        return np.minimum(self.clip.inverse(self.mean[index] + node * self.spread[index]), self.cap)

    def deviation(self, index: Indices) -> Array:
        """Return the deviations."""
        return np.asarray(self.spread[index])


@final
class Foretold:
    """An objective that is known before training: exact where it was asked, Gaussian elsewhere.

    A quantity that is always positive is modelled by its logarithm.
    """

    def __init__(self, model: "Model", pool: Features, sign: float) -> None:
        """Predict all of a pool; answers are still to be noted by `know`."""
        self._sign = sign
        self._model = model
        self._belief = model.process.at(pool)
        self._exact = np.full(len(pool), np.nan)

    def know(self, index: int, value: float) -> None:
        """Note the answer for a plan of the pool."""
        self._exact[index] = self._sign * value

    def learn(self, index: int, value: float) -> None:
        """Note a new answer and learn from it."""
        self.know(index, value)
        if value > 0 or not self._model.logarithmic:
            self._belief.observe(index, float(self._model.inner(np.array(value))))

    def at(self, index: Indices, node: float) -> Array:
        """Return answers, and means moved by `node` deviations where there are none."""
        spread = np.hypot(self._belief.deviation[index], self._model.process.noise)
        inner = self._belief.mean[index] + self._sign * node * spread
        believed = self._sign * (np.exp(inner) if self._model.logarithmic else inner)
        return np.where(np.isnan(self._exact[index]), believed, self._exact[index])

    def deviation(self, index: Indices) -> Array:
        """Return half the distance of what is one deviation better and worse, next to nothing for an answer."""
        return np.maximum((self.at(index, 1.0) - self.at(index, -1.0)) / 2, _EXACT * self._model.unit)


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """A process over answers, or over their logarithms; `unit` is how far they lie apart."""

    process: Process
    logarithmic: bool
    unit: float

    def inner(self, values: Array) -> Array:
        """Return answers as the process sees them."""
        return np.asarray(np.log(values)) if self.logarithmic else values


def model_of(codes: Codes, answers: Mapping[bytes, float]) -> Model:
    """Return a model of a quantity from answers by row, by its logarithm if it is always positive."""
    rows = np.array([np.frombuffer(row) for row in answers])
    values = np.array(list(answers.values()))
    kept = recent(len(rows), _MOST)
    logarithmic = bool((values > 0).all())
    process = fit(codes.features(rows[kept]), np.log(values[kept]) if logarithmic else values[kept], _SETTING)
    return Model(process=process, logarithmic=logarithmic, unit=float(values.std()) or 1.0)
