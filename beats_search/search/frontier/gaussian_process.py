"""Gaussian process: plans and a measured value of each in, the value of any other plan as a Gaussian out.

The covariance is a sum of two Matérn kernels of smoothness 5/2 (Rasmussen & Williams 2006, §4.2): one
of the distance of plans with a length scale per knob, one of the counts of equal options. Length
scales, amplitudes and noise maximize the posterior under log-normal priors; those of single knobs are
drawn to a common one, because a few tens of trials cannot tell twenty of them.
"""

from dataclasses import dataclass, replace
from typing import Final, final

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize

from beats_search.search.frontier.codes import Features
from beats_search.search.improvement import Array

_AMPLITUDES, _COUNT_SCALE, _SCALE, _NOISE, _KNOBS = slice(0, 2), 2, 3, 4, 5
_PRIOR_MEAN: Final = np.log([0.5, 0.5, 2.0, 2.0, 0.02])
_PRIOR_SPREAD: Final = np.array([1.5, 1.5, 0.7, 0.7, 1.5])
_KNOB_SPREAD: Final = 0.4
_WIDEST: Final = 4.0
_JITTER: Final = 1e-6
_ROUNDS: Final = 25


@final
@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Process:
    """A Gaussian process after some observations; `settings` are logarithms.

    Values are standardized inside: an observed one is `shift + unit × standardized`. `evidence` is the
    logarithm of the probability density of an observed value, on average.
    """

    settings: Array
    features: Features
    shift: float
    unit: float
    evidence: float
    factor: Array
    whitened: Array

    @property
    def noise(self) -> float:
        """Return the standard deviation of one observation of the same plan."""
        return float(np.sqrt(_noise(self.settings))) * self.unit

    def observing(self, features: Features, values: Array) -> "Process":
        """Return the process of the same settings after other observations."""
        factor, whitened = _conditioned(self.settings, features, (values - self.shift) / self.unit)
        return replace(self, features=features, factor=factor, whitened=whitened)

    def at(self, features: Features) -> "Belief":
        """Return what is believed of the values of other plans."""
        return Belief(self, features)


@final
class Belief:
    """Gaussians for a fixed set of plans, which further observations narrow down."""

    def __init__(self, process: Process, features: Features) -> None:
        """Predict all of them."""
        self._process = process
        self._features = features
        self._rows = solve_triangular(
            process.factor, _covariance(process.settings, process.features, features), lower=True, check_finite=False
        )
        self._mean = self._rows.T @ process.whitened
        self._variance = np.exp(process.settings[_AMPLITUDES]).sum() - (self._rows**2).sum(axis=0)

    @property
    def mean(self) -> Array:
        """Return the means (n,)."""
        return np.asarray(self._process.shift + self._process.unit * self._mean)

    @property
    def deviation(self) -> Array:
        """Return the standard deviations (n,), without the noise of an observation."""
        found: Array = self._process.unit * np.sqrt(np.maximum(self._variance, 1e-10))
        return found

    def observe(self, index: int, value: float) -> None:
        """Take in the value of one of the plans."""
        settings = self._process.settings
        here = _covariance(settings, self._features[[index]], self._features)[0] - self._rows[:, index] @ self._rows
        scale = np.sqrt(max(self._variance[index], 0.0) + _noise(settings))
        row = here / scale
        surprise = ((value - self._process.shift) / self._process.unit - self._mean[index]) / scale
        self._mean = self._mean + row * surprise
        self._variance = self._variance - row**2
        self._rows = np.vstack([self._rows, row])


def fit(features: Features, values: Array, most: int = 100) -> Process:
    """Return the process that explains the values (n,) best; its settings follow from `most` of them, evenly taken."""
    shift, unit = float(values.mean()), float(values.std()) or 1.0
    some = np.unique(np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int))
    standardized = (values - shift) / unit
    settings, misfit = _most_probable(features[some], standardized[some])
    factor, whitened = _conditioned(settings, features, standardized)
    return Process(
        settings=settings,
        features=features,
        shift=shift,
        unit=unit,
        evidence=-misfit / len(some) - float(np.log(unit)),
        factor=factor,
        whitened=whitened,
    )


def _conditioned(settings: Array, features: Features, values: Array) -> tuple[Array, Array]:
    """Return the triangular factor of the covariance of observations, and the standardized values in its terms."""
    noisy = _covariance(settings, features, features) + _noise(settings) * np.eye(len(values))
    factor = cholesky(noisy, lower=True, check_finite=False)
    return factor, solve_triangular(factor, values, lower=True, check_finite=False)


def _most_probable(features: Features, values: Array) -> tuple[Array, float]:
    """Return the settings, and the negative logarithm of their posterior, without its constant."""
    knobs = int(features.owner.max(initial=-1)) + 1
    mean = np.append(_PRIOR_MEAN, np.zeros(knobs))
    spread = np.append(_PRIOR_SPREAD, np.full(knobs, _KNOB_SPREAD))
    if not features.counts.shape[1]:
        mean[1] = -np.inf  # no counts, no covariance of them
    free = np.isfinite(mean)

    def surprise(chosen: Array) -> tuple[float, Array]:
        settings = mean.copy()
        settings[free] = chosen
        value, slope = _misfit(settings, features, values)
        off = (chosen - mean[free]) / spread[free]
        return value + 0.5 * float(off @ off), slope[free] + off / spread[free]

    sane = list(zip((mean - _WIDEST * spread)[free], (mean + _WIDEST * spread)[free], strict=True))
    found = minimize(surprise, mean[free], jac=True, method="L-BFGS-B", bounds=sane, options={"maxiter": _ROUNDS})
    best = mean.copy()
    best[free] = found.x
    return best, float(found.fun)


def _misfit(settings: Array, features: Features, values: Array) -> tuple[float, Array]:
    """Return the negative logarithm of the likelihood, without its constant, and its slope in each setting."""
    weighted = features.points * _weights(settings, features)
    near, near_slope = _matern(_squares(weighted, weighted))
    count_squares = _squares(features.counts, features.counts) * np.exp(-2 * settings[_COUNT_SCALE])
    alike, alike_slope = _matern(count_squares)
    one, other = np.exp(settings[_AMPLITUDES])
    factor = cholesky(one * near + other * alike + _noise(settings) * np.eye(len(values)), lower=True)
    half = solve_triangular(factor, np.eye(len(values)), lower=True, check_finite=False)
    inverse = half.T @ half
    explained = inverse @ values
    pull = inverse - np.outer(explained, explained)
    steep = pull * near_slope * one
    moved = 2 * ((steep.sum(axis=1)[:, None] * weighted**2).sum(axis=0) - ((steep @ weighted) * weighted).sum(axis=0))
    by_knob = -np.bincount(features.owner, moved, minlength=len(settings) - _KNOBS)
    slope = np.empty(len(settings))
    slope[_AMPLITUDES] = 0.5 * one * (pull * near).sum(), 0.5 * other * (pull * alike).sum()
    slope[_COUNT_SCALE] = -other * (pull * alike_slope * count_squares).sum()
    slope[_SCALE] = by_knob.sum()
    slope[_NOISE] = 0.5 * np.exp(settings[_NOISE]) * np.trace(pull)
    slope[_KNOBS:] = by_knob
    return float(0.5 * values @ explained + np.log(np.diag(factor)).sum()), slope


def _covariance(settings: Array, one: Features, other: Features) -> Array:
    weights = _weights(settings, one)
    near, _ = _matern(_squares(one.points * weights, other.points * weights))
    amplitudes = np.exp(settings[_AMPLITUDES])
    if not amplitudes[1]:
        return np.asarray(amplitudes[0] * near)
    alike, _ = _matern(_squares(one.counts, other.counts) * np.exp(-2 * settings[_COUNT_SCALE]))
    return np.asarray(amplitudes[0] * near + amplitudes[1] * alike)


def _weights(settings: Array, features: Features) -> Array:
    return np.asarray(np.exp(-settings[_SCALE] - settings[_KNOBS:])[features.owner])


def _noise(settings: Array) -> float:
    return float(np.exp(settings[_NOISE])) + _JITTER


def _squares(one: Array, other: Array) -> Array:
    sums = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1)
    return np.asarray(np.maximum(sums - 2 * one @ other.T, 0.0))


def _matern(squares: Array) -> tuple[Array, Array]:
    """Return the Matérn kernel of smoothness 5/2 at squared distances, and its slope in them."""
    root = np.sqrt(5 * squares)
    decay = np.exp(-root)
    return (1 + root + root**2 / 3) * decay, -(5 / 6) * (1 + root) * decay
