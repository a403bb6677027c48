"""Strata: a column of classes in, labels and which rows train, validate and test out."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pandas as pd
import torch
from pandas import Series
from torch import Tensor

_FEWEST_CLASSES: Final = 2
_FEWEST_ROWS: Final = 3  # one for each split


def read_classes(texts: "Series[str]", file: Path, note: str = "") -> tuple[tuple[str, ...], Tensor]:
    """Return the classes, sorted, and the label of each row, int64; numbers sort and compare as numbers.

    Raises ValueError when there is nothing to tell apart, or a class too rare for three splits;
    `note` says what the first may come from.
    """
    where = f"{file}: target column {str(texts.name)!r}"
    names = _as_numbers(texts)
    counts = names.value_counts()
    classes = sorted(counts.index, key=_by_number)
    if len(classes) < _FEWEST_CLASSES:
        raise ValueError(f"{where} needs at least {_FEWEST_CLASSES} classes, got {classes[0]!r} only{note}")
    rare = [name for name in classes if counts[name] < _FEWEST_ROWS]
    if rare:
        rule = f"{where} needs at least {_FEWEST_ROWS} rows per class, one for each split"
        got = f"got {counts[rare[0]]} for {rare[0]!r} ({len(rare)} of {len(classes)} classes are too rare)"
        raise ValueError(f"{rule}, {got}; join or remove rare classes, and put amounts into ranges")
    code = {name: label for label, name in enumerate(classes)}
    return tuple(classes), torch.tensor([code[name] for name in names], dtype=torch.int64)


def split_by_class(labels: Tensor, validation: float, test: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the rows that train, validate and test, ascending; each class is dealt out in these shares.

    Every class of at least three rows is in all splits. The deal depends on labels and seed alone.
    """
    generator = torch.Generator().manual_seed(seed)
    parts: list[tuple[Tensor, ...]] = []
    for label in range(int(labels.max()) + 1):
        rows = (labels == label).nonzero().flatten()
        rows = rows[torch.randperm(len(rows), generator=generator)]
        tested = min(max(1, round(test * len(rows))), len(rows) - 2)
        validated = min(max(1, round(validation * len(rows))), len(rows) - 1 - tested)
        parts.append(torch.split(rows, [len(rows) - validated - tested, validated, tested]))
    train, validating, testing = (torch.cat(part).sort()[0] for part in zip(*parts, strict=True))
    return train, validating, testing


def _as_numbers(texts: "Series[str]") -> "Series[str]":
    """Return the labels, where all are finite numbers each in one spelling: 1, 01 and 1.0 are one class."""
    numbers: Sequence[float] = pd.to_numeric(texts, errors="coerce").tolist()
    if not all(math.isfinite(number) for number in numbers):
        return texts
    return pd.Series([f"{number:.17g}" if float(number).is_integer() else str(number) for number in numbers])


def _by_number(name: str) -> tuple[float, str]:
    try:
        return float(name), name
    except ValueError:
        return math.inf, name
