"""Pool: what has been tried and what is on the front in, plans worth a look out."""

import numpy as np

from beats_search.search.frontier.codes import Codes, Features
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


def distinct(rows: Array, taken: frozenset[bytes]) -> Array:
    """Return the rows, each once, that are not among those taken, in their order."""
    fresh = dict.fromkeys(row.tobytes() for row in rows)
    kept = [np.frombuffer(row) for row in fresh if row not in taken]
    return np.array(kept).reshape(-1, rows.shape[1])


def apartness(features: Features, tried: Features, rng: np.random.Generator) -> Array:
    """Return how far the nearest tried plan is from each (n,): its squared distance, and a random part below 0.25."""
    squares = [((features.points - point) ** 2).sum(axis=1) for point in tried.points]
    return np.asarray(np.min(squares, axis=0, initial=np.inf if squares else 1.0) + 0.25 * rng.random(len(features)))
