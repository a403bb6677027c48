"""Clipping: values to be maximized in, the same with the low tail drawn up out, and back."""

from dataclasses import dataclass
from typing import Final, final

import numpy as np

from beats_search.search.improvement import Array

_DEEPEST: Final = 50.0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """Draws values to be maximized that lie below `middle` up to it, the more the farther; `unit` is how far is far.

    The low tail carries no hypervolume, and a model that has to explain it explains the top less well.
    """

    middle: float
    unit: float

    def __call__(self, values: Array) -> Array:
        """Return values drawn up."""
        return np.where(values < self.middle, self.middle - self.unit * np.log1p(self._depth(values)), values)

    def inverse(self, drawn: Array) -> Array:
        """Return the values that were drawn up to these; nothing is so low that it is not a number."""
        steps = np.minimum((self.middle - drawn) / self.unit, _DEEPEST)
        return np.where(drawn < self.middle, self.middle - self.unit * np.expm1(steps), drawn)

    def slope(self, values: Array) -> Array:
        """Return the slope at values, above 0 and at most 1."""
        return 1.0 / (1.0 + self._depth(values))

    def _depth(self, values: Array) -> Array:
        return np.maximum(0.0, self.middle - values) / self.unit


def clip_at(values: Array, share: float) -> Clip:
    """Return what draws up those below a quantile of values.

    The unit is from there up to the best; where half of all are the best, down to the second best.
    """
    middle, best = float(np.quantile(values, share)), float(values.max())
    others = values[values < best]
    unit = best - middle if middle < best or not len(others) else best - float(others.max())
    return Clip(middle=middle, unit=max(unit, 1e-12))
