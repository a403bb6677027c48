"""Pool: what has been tried and what is on the front in, plans worth a look out."""

import numpy as np

from beats_search.search.frontier.codes import Codes
from beats_search.search.improvement import Array

_NEIGHBOURS = 600


def around(codes: Codes, centres: Array, rng: np.random.Generator, most: int = _NEIGHBOURS) -> Array:
    """Return up to `most` rows that differ from one of the centres (n, k) in one knob, as many of each.

    Knobs that a centre does not use have random values, for a neighbour may use them.
    """
    filled = np.where(np.isnan(centres), codes.random(rng, len(centres)), centres)
    found = [codes.neighbours(row, rng) for row in filled]
    share = max(1, most // max(1, len(found)))
    some = [rows[rng.permutation(len(rows))[:share]] for rows in found]
    return np.vstack([np.empty((0, len(codes.names))), *some])


def kin(codes: Codes, centres: Array, rng: np.random.Generator, most: int = _NEIGHBOURS) -> Array:
    """Return up to `most` rows that differ from one of the centres (n, k) in one whole part of the plan, at random.

    They are what one knob's change does not lead to: the same training with any compression of it, or
    any training for a structure that is known. None where parts have single knobs.
    """
    if not len(centres) or max(map(len, codes.parts), default=0) <= 1:
        return np.empty((0, len(codes.names)))
    found, other = centres[rng.integers(len(centres), size=most)], codes.random(rng, most)
    found = np.where(np.isnan(found), other, found)
    chosen = rng.integers(len(codes.parts), size=most)
    for number, columns in enumerate(codes.parts):
        changed = np.ix_(chosen == number, columns)
        found[changed] = other[changed]
    return found


def distinct(rows: Array, taken: frozenset[bytes]) -> Array:
    """Return the rows, each once, that are not among those taken, in their order."""
    fresh = dict.fromkeys(row.tobytes() for row in rows)
    kept = [np.frombuffer(row) for row in fresh if row not in taken]
    return np.array(kept).reshape(-1, rows.shape[1])


def apartness(points: Array, tried: Array, rng: np.random.Generator) -> Array:
    """Return how far the nearest tried of points (n, f) is: its squared distance, and a random part below 0.25."""
    squares = [((points - point) ** 2).sum(axis=1) for point in tried]
    return np.asarray(np.min(squares, axis=0, initial=np.inf if squares else 1.0) + 0.25 * rng.random(len(points)))
