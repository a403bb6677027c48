"""Codes: distributions and values of knobs in, rows of numbers that a model can compare out.

A row has a number for each knob: the index of an option, or the value; NaN where it is not used.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeAlias, final

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from beats_search.search.improvement import Array

Indices: TypeAlias = NDArray[np.intp]
Mask: TypeAlias = NDArray[np.bool_]

_RANGE: Final = 2.0
"""Both ends of a range are as far apart as plans that differ in so many choices, squared."""

_OPTIONS: Final = 8
_ORDERED: Final = 3
_FINEST: Final = 256
_MOVES: Final = (-0.3, -0.1, -0.03, 0.03, 0.1, 0.3)


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Rows as points: `points` (n, f), column by column of knob `owner` (f,), and `counts` (n, c).

    In `points`, plans that differ in one choice of names are at a distance of 1; three or more options that
    are numbers lie on a line as well, as the values of a range. `counts` say how often knobs with equal
    options have each option, whichever knob it is: the same kernel size in any layer, say.
    """

    points: Array
    owner: Indices
    counts: Array

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: Any) -> "Features":  # noqa: ANN401 - whatever numpy takes as an index
        return Features(self.points[index], self.owner, self.counts[index])


@final
@dataclass(frozen=True, eq=False)
class Codes:
    """The knobs of a study, by name, each with at least two values."""

    distributions: Mapping[str, BaseDistribution]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return the names of the knobs, sorted: the columns of a row."""
        return tuple(sorted(self.distributions))

    @cached_property
    def fingerprint(self) -> int:
        """Return a number that tells these columns from others."""
        text = json.dumps([(name, distribution_to_json(self.distributions[name])) for name in self.names])
        return zlib.crc32(text.encode())

    def row(self, params: Mapping[str, Any]) -> Array:
        """Return the row of a trial's values; NaN for a value that is missing or no longer allowed."""
        return np.array([self._code(name, params) for name in self.names])

    def params(self, row: Array) -> dict[str, Any]:
        """Return the values of a row, without those that are not used."""
        pairs = zip(self.names, row, strict=True)
        return {
            name: self.distributions[name].to_external_repr(float(code)) for name, code in pairs if not np.isnan(code)
        }

    def random(self, rng: np.random.Generator, count: int) -> Array:
        """Return `count` random rows in which every knob has a value."""
        return self._at(rng.random((count, len(self.names))))

    def neighbours(self, row: Array, rng: np.random.Generator) -> Array:
        """Return the rows that differ from one in a single knob: other options, and smaller and larger values."""
        found = []
        for column, name in enumerate(self.names):
            for code in self._others(self.distributions[name], row[column], rng):
                neighbour = row.copy()
                neighbour[column] = code
                found.append(neighbour)
        return np.array(found).reshape(-1, len(self.names))

    @cached_property
    def parts(self) -> tuple[Indices, ...]:
        """Return the columns of the knobs of each part of a plan: their names are alike up to the first dot."""
        heads = [name.split(".", 1)[0] for name in self.names]
        return tuple(np.flatnonzero([head == one for head in heads]) for one in dict.fromkeys(heads))

    def features(self, rows: Array) -> Features:
        """Return rows (n, k) as points; a knob that is not used is in the middle of all its values."""
        columns = [(self.distributions[name], rows[:, column]) for column, name in enumerate(self.names)]
        blocks = [self._block(distribution, codes) for distribution, codes in columns]
        lines = [self._line(distribution, codes) for distribution, codes in columns]
        owner = np.repeat(np.tile(np.arange(len(columns)), 2), [one.shape[1] for one in (*blocks, *lines)])
        counts = [sum((blocks[column] for column in alike), np.zeros(1)) for alike in self._alike]
        empty = np.empty((len(rows), 0))
        return Features(np.hstack([empty, *blocks, *lines]), owner, np.hstack([empty, *counts]))

    @cached_property
    def magnitudes(self) -> Mapping[int, tuple[float, float]]:
        """Return by column the ends of each continuous range on a logarithmic scale."""
        found = [(column, self.distributions[name]) for column, name in enumerate(self.names)]
        return {at: (one.low, one.high) for at, one in found if isinstance(one, FloatDistribution) and one.log}

    def rings(self, rows: Array) -> Array:
        """Return rows (n, k) as points (n, f) for spreading them: a range is a ring, its ends beside one another.

        Whoever goes as far as possible from what was tried would otherwise go to the ends of all ranges,
        which are where a setting is least likely to be right.
        """
        blocks = [self._ring(self.distributions[name], rows[:, column]) for column, name in enumerate(self.names)]
        return np.hstack([np.empty((len(rows), 0)), *blocks])

    @cached_property
    def _alike(self) -> list[list[int]]:
        """Return the columns of knobs with equal options, two or more together."""
        groups: dict[BaseDistribution, list[int]] = {}
        for column, name in enumerate(self.names):
            if isinstance(self.distributions[name], CategoricalDistribution):
                groups.setdefault(self.distributions[name], []).append(column)
        return [columns for columns in groups.values() if len(columns) > 1]

    def _code(self, name: str, params: Mapping[str, Any]) -> float:
        if name not in params:
            return np.nan
        try:
            code = float(self.distributions[name].to_internal_repr(params[name]))
        except (ValueError, TypeError):
            return np.nan
        return code if self.distributions[name]._contains(code) else np.nan  # noqa: SLF001 - told nowhere else

    def _at(self, shares: Array) -> Array:
        columns = [_value(self.distributions[name], shares[:, column]) for column, name in enumerate(self.names)]
        return np.stack(columns, axis=1) if columns else shares

    def _others(self, distribution: BaseDistribution, code: float, rng: np.random.Generator) -> Array:
        values = np.unique(_value(distribution, (np.arange(_FINEST) + 0.5) / _FINEST))
        if isinstance(distribution, CategoricalDistribution) or len(values) <= _OPTIONS:
            options = np.setdiff1d(values, [code])
            return options if len(options) <= _OPTIONS else rng.choice(options, _OPTIONS, replace=False)
        shares = _share(distribution, np.array([code])) + np.array(_MOVES) * rng.uniform(0.5, 1.5, len(_MOVES))
        moved = _value(distribution, shares.clip(0.0, 1.0 - 1e-12))
        return np.setdiff1d(np.concatenate([moved, values[values < code][-1:], values[values > code][:1]]), [code])

    def _block(self, distribution: BaseDistribution, codes: Array) -> Array:
        unused = np.isnan(codes)
        if isinstance(distribution, CategoricalDistribution):
            options = len(distribution.choices)
            found = np.eye(options)[np.where(unused, 0, codes).astype(int)]
            found[unused] = 1.0 / options
            return np.asarray(found / np.sqrt(2.0))
        return np.where(unused, 0.5, _share(distribution, codes))[:, None] * _RANGE

    def _line(self, distribution: BaseDistribution, codes: Array) -> Array:
        """Return where options that are numbers lie in their order (n, 1), the middle for others; or (n, 0)."""
        options = distribution.choices if isinstance(distribution, CategoricalDistribution) else ()
        numbers = [option for option in options if isinstance(option, int | float) and not isinstance(option, bool)]
        if len(levels := sorted(set(numbers))) < _ORDERED:
            return np.empty((len(codes), 0))
        places = {option: place / (len(levels) - 1) for place, option in enumerate(levels)}
        line = np.array([places[option] if option in numbers else 0.5 for option in options])
        unused = np.isnan(codes)
        return _RANGE * np.where(unused, 0.5, line[np.where(unused, 0, codes).astype(int)])[:, None]

    def _ring(self, distribution: BaseDistribution, codes: Array) -> Array:
        if isinstance(distribution, CategoricalDistribution):
            return self._block(distribution, codes)
        levels = _levels(distribution)
        turns = 2 * np.pi * _share(distribution, codes) * (1 - 1 / levels)
        ring = np.stack([np.cos(turns), np.sin(turns)], axis=1) / np.sqrt(2.0)
        return np.where(np.isnan(codes)[:, None], 0.0, ring)


def _levels(distribution: BaseDistribution) -> float:
    """Return how many values a range has."""
    match distribution:
        case IntDistribution(low=low, high=high, step=step) | FloatDistribution(low=low, high=high, step=float(step)):
            return round((high - low) / step) + 1
    return np.inf


def _value(distribution: BaseDistribution, shares: Array) -> Array:
    """Return the codes at shares in [0, 1) of the knob's line; every value has an equal part of it."""
    match distribution:
        case CategoricalDistribution(choices=choices):
            return np.floor(shares * len(choices))
        case IntDistribution(low=low, high=high, log=True):
            return np.rint((low - 0.5) * ((high + 0.5) / (low - 0.5)) ** shares).clip(low, high)
        case IntDistribution(low=low, high=high, step=step):
            return low + step * np.floor(shares * ((high - low) // step + 1))
        case FloatDistribution(low=low, high=high, log=True):
            return (low * (high / low) ** shares).clip(low, high)
        case FloatDistribution(low=low, high=high, step=None):
            return (low + shares * (high - low)).clip(low, high)
        case FloatDistribution(low=low, high=high, step=float(step)):
            return np.minimum(high, low + step * np.floor(shares * (round((high - low) / step) + 1)))
    raise TypeError(f"a knob is a float, an integer or a choice, got {distribution}")


def _share(distribution: BaseDistribution, codes: Array) -> Array:
    """Return where on the knob's line codes are, from 0 at its low to 1 at its high end."""
    match distribution:
        case IntDistribution(low=low, high=high, log=log) | FloatDistribution(low=low, high=high, log=log):
            if log:
                return np.asarray(np.log(codes / low) / np.log(high / low))
            return (codes - low) / (high - low)
    raise TypeError(f"a range is of floats or integers, got {distribution}")
