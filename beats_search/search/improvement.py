"""Improvement: a front and what is certain and uncertain of a candidate in, the hypervolume it may gain out.

Everything here is to be maximized: the values of a minimized objective come with their sign changed.
A point is a row of `d` objectives, of which the last is the uncertain one (accuracy); the `d − 1`
before it are certain (latency, measured before training). A front is what `front_of` returns.

The gain of a candidate is convex and piecewise linear in its uncertain value a: with levels a_j of the
front and a_0 of the reference, HVI(a) = Σ_j w_j max(0, a − a_j), where w_j is the measure of what the
candidate's certain values win of the front's slice above a_j and had not won below it. Hence the
expectation for a Gaussian a is a sum of expected improvements, in closed form for any number of
certain objectives (Emmerich, Deutz & Klinkenberg 2011, for two objectives; Emmerich et al. 2016 for
the slices). Its logarithm is computed as in Ament et al. 2023, arXiv:2310.20708, so that candidates
far from any improvement still have an order.
"""

import math
from typing import Final, Protocol, TypeAlias

import moocore
import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcx, log_ndtr, logsumexp, ndtr

Array: TypeAlias = NDArray[np.float64]


class Drawing(Protocol):
    """Draws up values below its middle."""

    @property
    def middle(self) -> float:
        """Return the value from which on nothing is drawn."""

    def __call__(self, values: Array, /) -> Array:
        """Return values drawn up."""


_LOG_ROOT_TAU: Final = 0.5 * np.log(2 * np.pi)
_TAIL: Final = -1.0
_FAR: Final = 1e4


def front_of(points: Array, reference: Array) -> Array:
    """Return the rows of `points` (m, d) that no other dominates and that beat the reference (d,) in everything."""
    better = points[(points > reference).all(axis=1)]
    if not len(better):
        return np.empty((0, len(reference)))
    found: Array = better[moocore.is_nondominated(better, maximise=True, keep_weakly=False)]
    return found


def steps(certain: Array, front: Array, reference: Array) -> tuple[Array, Array]:
    """Return the levels a_j (k,), ascending from the reference's, and weights w_j (n, k) of candidates (n, d − 1)."""
    levels = np.unique(np.append(front[:, -1], reference[-1]))
    won = [_won(certain, front[front[:, -1] > level, :-1], reference[:-1]) for level in levels]
    return levels, np.diff(np.stack(won, axis=1), axis=1, prepend=0.0).clip(min=0.0)


def improvement(certain: Array, uncertain: Array, front: Array, reference: Array) -> Array:
    """Return the hypervolume that candidates (n, d − 1) gain if their last objective turns out as `uncertain` (n,)."""
    levels, weights = steps(certain, front, reference)
    gained: Array = (weights * np.maximum(0.0, uncertain[:, None] - levels)).sum(axis=1)
    return gained


def bound(certain: Array, cap: float, front: Array, reference: Array) -> Array:
    """Return what candidates (n, d − 1) gain at most, their last objective being at most `cap`."""
    return improvement(certain, np.full(len(certain), cap), front, reference)


def bar(certain: Array, front: Array, reference: Array) -> Array:
    """Return the value of the last objective above which candidates (n, d − 1) enter the front."""
    ahead = (front[None, :, :-1] >= certain[:, None, :]).all(axis=2)
    level: Array = np.where(ahead, front[None, :, -1], reference[-1]).max(axis=1, initial=reference[-1])
    return level


def expected(certain: Array, mean: Array, deviation: Array, front: Array, reference: Array) -> Array:
    """Return the expected gain of candidates (n, d − 1) whose last objective is Gaussian."""
    return np.exp(log_expected(certain, mean, deviation, front, reference))


def log_expected(  # noqa: PLR0913 - a Gaussian, and all that bounds what it may gain
    certain: Array,
    mean: Array,
    deviation: Array,
    front: Array,
    reference: Array,
    *,
    clip: Drawing | None = None,
    cap: float = math.inf,
) -> Array:
    """Return the logarithm of `expected`, minus infinity for a candidate that gains nothing at any value up to `cap`.

    Outcomes beyond the cap, which the last objective cannot exceed, count as if they were there.
    With a clip, mean and deviation are of the last objective as drawn by it. What lies between a level and
    where that is drawn to is gained by outcomes above the clip's middle, which are not drawn; what is gained
    by outcomes below it is counted as drawn, less than it is.
    """
    levels, weights = steps(certain, front, reference)
    if not len(certain):
        return np.empty(0)
    drawn = levels if clip is None else clip(levels)
    with np.errstate(divide="ignore"):
        terms = np.log(deviation)[:, None] + _log_excess((mean[:, None] - drawn) / deviation[:, None])
        if clip is not None:
            above = log_ndtr((mean - clip.middle) / deviation)[:, None]
            terms = np.logaddexp(terms, np.log(np.maximum(drawn - levels, 0.0)) + above)
        if cap < math.inf:
            beyond = np.log(deviation) + _log_excess(
                (mean - (cap if clip is None else clip(np.array(cap)))) / deviation
            )
            share = np.exp(np.minimum(beyond[:, None] - terms, 0.0))
            terms = np.where(levels < cap, terms + np.log1p(-share), -np.inf)
        terms = terms + np.log(weights)
    found: Array = logsumexp(terms, axis=1)
    return found


def log_probability_below(limit: Array, mean: Array, deviation: Array) -> Array:
    """Return the logarithm of the probability that a Gaussian is at most `limit`."""
    found: Array = log_ndtr((limit - mean) / deviation)
    return found


def mean_below(limit: Array, mean: Array, deviation: Array) -> Array:
    """Return the mean of a Gaussian that is known to be at most `limit`."""
    z = (limit - mean) / deviation
    found: Array = mean - deviation * np.exp(-0.5 * z**2 - _LOG_ROOT_TAU - log_ndtr(z))
    return np.asarray(np.minimum(found, limit))


def _won(certain: Array, front: Array, reference: Array) -> Array:
    """Return the measure of what candidates (n, k) dominate above the reference and the front (m, k) does not."""
    if not certain.shape[1]:
        return np.full(len(certain), 0.0 if len(front) else 1.0)
    if certain.shape[1] == 1:
        return np.asarray(np.maximum(0.0, certain[:, 0] - front[:, 0].max(initial=reference[0])))
    edges = np.unique(np.append(front[:, -1], reference[-1]))
    total = np.zeros(len(certain))
    for low, high in zip(edges, np.append(edges[1:], np.inf), strict=True):
        thickness = np.clip(certain[:, -1], low, high) - low
        total += thickness * _won(certain[:, :-1], front[front[:, -1] > low, :-1], reference[:-1])
    return total


def _log_excess(z: Array) -> Array:
    """Return log(φ(z) + z Φ(z)): the expected excess over 0 of a Gaussian of mean z and deviation 1."""
    near, far = np.maximum(z, _TAIL), np.maximum(-z, -_TAIL)
    near_value = np.log(np.exp(-0.5 * near**2 - _LOG_ROOT_TAU) + near * ndtr(near))
    mills = 1.0 - np.minimum(far, _FAR) * np.sqrt(np.pi / 2) * erfcx(np.minimum(far, _FAR) / np.sqrt(2))
    tail = np.where(far < _FAR, np.log(mills), -2.0 * np.log(far))
    found: Array = np.where(z > _TAIL, near_value, -0.5 * far**2 - _LOG_ROOT_TAU + tail)
    return found
