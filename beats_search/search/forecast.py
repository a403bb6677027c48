"""Forecast: a reading during training and what became of other trials in, the accuracy of the final file out.

Bayesian linear regression of log-odds with a conjugate prior (Gelman et al., Bayesian Data Analysis,
ch. 14; the predictive is a Student-t). The prior says: the final file reads like the dense model now,
plus a gain that grows with the share of training that is left. Every setting in which plans differ,
those of compression among them, may shift that, by little unless trials tell otherwise.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias, cast, final

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from beats_search.records.plain import Plain, to_plain
from beats_search.records.plan import TrialPlan

_Array: TypeAlias = NDArray[np.float64]

_GAIN: Final = 2.0
"""The prior's gain over all of training, in log-odds: from 70 % to 95 %, or from 95 % to 99 %."""

_NOISE: Final = 0.5
"""The prior's standard deviation of a final reading around its forecast, in log-odds."""

_DEGREES: Final = 4
"""In degrees of freedom, how many trials the prior of the noise is worth."""

_LEVEL_VARIANCE, _READING_VARIANCE, _GAIN_VARIANCE, _SETTING_VARIANCE = 9.0, 1.0, 4.0, 0.1
"""Prior variances of the coefficients, in units of the noise's; the last is small, which shrinks what settings do."""

_FEW: Final = 6
"""A setting with at most so many values has an effect per value, beside the one in proportion to a number."""

_DECADE: Final = 10.0
"""A positive setting that spans this factor counts by its logarithm."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The validation accuracy of a plan's dense model after an epoch."""

    plan: TrialPlan
    epoch: int
    accuracy: float

    @property
    def remaining(self) -> float:
        """The share of training that is left."""
        return 1 - self.epoch / self.plan.training.epochs


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What the final accuracy will be, as a Student-t distribution of its log-odds.

    It is kept as a function of the reading: with a reading higher by d, the mean is `mean + slope d`
    and the squared scale `variance + 2 covariance d + curvature d²`. `room` is the largest d there can be.
    """

    mean: float
    slope: float
    variance: float
    covariance: float
    curvature: float
    room: float
    degrees: float
    images: int

    @property
    def accuracy(self) -> float:
        """The median."""
        return _share(self.mean)

    def interval(self, level: float) -> tuple[float, float]:
        """Return the accuracies between which it lies with this probability, in the middle."""
        spread = float(stdtrit(self.degrees, (1 + level) / 2)) * math.sqrt(self.variance)
        return _share(self.mean - spread), _share(self.mean + spread)

    def probability_above(self, bar: float) -> float:
        """Return the probability that the final accuracy exceeds a bar, by one validation image at least.

        Of this reading and all higher ones, the least counts: who would not reach the bar with a better
        reading will not with a worse one, however little is known of such readings.
        """
        half_an_image = 0.5 / self.images
        if bar + half_an_image >= 1:
            return 0.0
        distance = log_odds(bar + half_an_image, self.images) - self.mean
        return float(stdtr(self.degrees, -max(self._lag(distance, higher) for higher in self._extremes(distance))))

    def _lag(self, distance: float, higher: float) -> float:
        """Return by how many scales the mean is below the bar, with a reading that is higher."""
        scale = math.sqrt(self.variance + 2 * self.covariance * higher + self.curvature * higher**2)
        return (distance - self.slope * higher) / scale

    def _extremes(self, distance: float) -> tuple[float, ...]:
        """Return the readings, as differences to this one, of which one has the largest lag."""
        across = self.slope * self.covariance + distance * self.curvature
        along = -(self.slope * self.variance + distance * self.covariance)
        turn = along / across if across else 0.0
        return (0.0, turn, self.room) if 0 < turn < self.room else (0.0, self.room)


def forecast(seen: Sequence[tuple[Reading, float]], reading: Reading, images: int) -> Forecast:
    """Return a forecast from readings at the same rung, each with the accuracy of the final file.

    `images` is how many the validation split has: no accuracy is nearer to 0 or 1 than half of one.
    """
    everyone = [*(one for one, _ in seen), reading]
    readings = np.array([log_odds(one.accuracy, images) for one in everyone])
    remaining = np.array([one.remaining for one in everyone])
    finals = np.array([log_odds(accuracy, images) for _, accuracy in seen])
    centre = float(np.median(readings[:-1])) if seen else float(readings[-1])
    settings = _columns([_settings(one.plan) for one in everyone])
    design = np.column_stack([np.ones(len(everyone)), readings - centre, remaining, settings])
    variances = [_LEVEL_VARIANCE, _READING_VARIANCE, _GAIN_VARIANCE] + [_SETTING_VARIANCE] * settings.shape[1]
    expected = np.array([centre, 1.0, _GAIN] + [0.0] * settings.shape[1])
    fitted = _fit(design[:-1], finals, expected, np.array(variances))
    return _predict(fitted, design[-1], log_odds(1.0, images) - float(readings[-1]), images)


def log_odds(share: float, images: int) -> float:
    """Return the log-odds of a share of so many images, clipped at half an image from 0 and 1."""
    edge = 0.5 / images
    inside = min(max(share, edge), 1 - edge)
    return math.log(inside / (1 - inside))


def _share(odds: float) -> float:
    return 0.5 * (1 + math.tanh(odds / 2))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Fitted:
    """The posterior: coefficients, their covariance in units of the noise's variance, and that variance."""

    coefficients: _Array
    covariance: _Array
    noise: float
    degrees: float


def _fit(design: _Array, targets: _Array, expected: _Array, variances: _Array) -> _Fitted:
    surprise = targets - design @ expected
    covariance: _Array = np.linalg.inv(np.diag(1 / variances) + design.T @ design).astype(np.float64)
    moved = covariance @ design.T @ surprise
    squares = float(surprise @ (surprise - design @ moved))
    degrees = _DEGREES + len(targets)
    noise = (_DEGREES * _NOISE**2 + max(0.0, squares)) / degrees
    return _Fitted(coefficients=expected + moved, covariance=covariance, noise=noise, degrees=degrees)


def _predict(fitted: _Fitted, row: _Array, room: float, images: int) -> Forecast:
    """Return the forecast for a row of the design; the reading is its second entry."""
    return Forecast(
        mean=float(row @ fitted.coefficients),
        slope=float(fitted.coefficients[1]),
        variance=fitted.noise * float(1 + row @ fitted.covariance @ row),
        covariance=fitted.noise * float(fitted.covariance[1] @ row),
        curvature=fitted.noise * float(fitted.covariance[1, 1]),
        room=room,
        degrees=fitted.degrees,
        images=images,
    )


@lru_cache(maxsize=4096)
def _settings(plan: TrialPlan) -> Mapping[str, Plain]:
    """Return every setting of a plan by its path; those of a part stand below its name."""
    return dict(_walk("", to_plain(plan)))


def _walk(path: str, value: Plain) -> Iterator[tuple[str, Plain]]:
    if isinstance(value, Mapping):
        part = value.get("name")
        if part is not None:
            yield path, part
        for key, item in value.items():
            if key != "name":
                yield from _walk(f"{path}.{key}" if part is None else f"{path}.{part}.{key}", item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(f"{path}.{index}", item)
    else:
        yield path, value


def _columns(plans: Sequence[Mapping[str, Plain]]) -> _Array:
    """Return a row of numbers per plan: what differs between plans, of unit variance or 0 and 1."""
    paths = sorted({path for plan in plans for path in plan})
    settings = ([plan.get(path) for plan in plans] for path in paths)
    found = [column for values in settings if values.count(values[0]) < len(values) for column in _encoded(values)]
    return np.array(found, dtype=float).reshape(len(found), len(plans)).T


def _encoded(values: Sequence[Plain]) -> Iterator[_Array]:
    """Yield the columns of one setting: in proportion to a number, and one per value where these are few or words."""
    numeric = all(isinstance(value, int | float | None) and not isinstance(value, bool) for value in values)
    if numeric:
        yield _standardized(cast("Sequence[float | None]", values))
    levels = sorted({repr(value) for value in values})
    if not numeric or len(levels) <= _FEW:
        yield from (np.array([repr(value) == level for value in values], dtype=float) for level in levels)


def _standardized(values: Sequence[float | None]) -> _Array:
    """Return numbers with mean 0 and variance 1, and 0 where there is none or they are all the same."""
    numbers = np.array([value for value in values if value is not None], dtype=float)
    low, high = float(numbers.min()), float(numbers.max())
    scaled = np.log(numbers) if low > 0 and high >= _DECADE * low else numbers
    found = np.zeros(len(values))
    found[[value is not None for value in values]] = (scaled - scaled.mean()) / (float(scaled.std()) or 1.0)
    return found
