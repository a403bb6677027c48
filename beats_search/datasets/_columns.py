"""Columns: fields as texts in, numbers and category codes out."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pandas import DataFrame, Series
from torch import Tensor

from beats_search.records.column import Column

_MOST_CATEGORIES: Final = 100
_MOST_COMPARED: Final = 100_000  # so many float32 are still apart when they are spread; of more, some always meet
_ENOUGH: Final = 0.9
_SIGN: Final = "[$€£¥%]?"
_MARKED: Final = re.compile(rf"[-+]?{_SIGN}\s?[-+]?(\d{{1,3}}([.,'\s]\d{{3}})+|\d+)?([.,]\d+)?\s?{_SIGN}")


def read_columns(
    table: DataFrame, train: Tensor, categories: Collection[str], file: Path
) -> tuple[tuple[Column, ...], Tensor]:
    """Return what the columns are, and their values as float32 rows (n, columns).

    A column is of numbers when every value in it is one and it is not among `categories`. Categories
    are the texts of the rows `train`, sorted; others and missing ones are -1, missing numbers NaN.
    """
    if not len(table.columns):
        raise ValueError(f"{file} has no column left to learn from beside the target")
    read = [_read_column(table[name], train, name in categories, f"{file}: column {name!r}") for name in table.columns]
    columns, values = zip(*read, strict=True)
    return columns, torch.stack(values, dim=1)


def _read_column(texts: "Series[str]", train: Tensor, as_text: bool, where: str) -> tuple[Column, Tensor]:  # noqa: FBT001 - private
    name = str(texts.name)
    known = texts.iloc[train.numpy()].dropna()
    if known.empty:
        raise ValueError(f"{where} has no value in the rows to train on; drop: [{name}] leaves it out")
    numbers = pd.to_numeric(texts, errors="coerce")
    words = texts[texts.notna() & numbers.isna()]
    if words.empty and not as_text:
        return Column(name=name, kind="number"), _float32(numbers, train, where)
    if not as_text:
        _refuse_numbers(texts, where)
    _refuse_many(texts, where)
    column = Column(name=name, kind="category", categories=tuple(sorted(known.unique())))
    return column, torch.tensor([column.codes.get(text, -1) for text in texts], dtype=torch.float32)


def _float32(numbers: "Series[float]", train: Tensor, where: str) -> Tensor:
    exact = numbers.to_numpy(dtype="float64")
    values = torch.tensor(exact).float()
    if bool(values.isinf().any()):
        at = int(values.isinf().nonzero()[0])
        got = f"got {exact[at]} in line {numbers.index[at]}"
        raise ValueError(f"{where} needs numbers that a float32 can hold, {got}; drop: [{numbers.name}] leaves it out")
    _refuse_rounded(exact[train.numpy()], str(numbers.name), where)
    return values


def _refuse_rounded(exact: NDArray[np.float64], name: str, where: str) -> None:
    """Refuse numbers that differ by too little beside their size: what they say would be rounded away."""
    different = np.unique(exact[~np.isnan(exact)])
    different = different[:: 1 + len(different) // _MOST_COMPARED]
    left = len(np.unique(different.astype(np.float32)))
    if left < _ENOUGH * len(different):
        got = f"got {len(different)} different ones from {different[0]:.15g} to {different[-1]:.15g}"
        rule = f"{where} needs numbers that stay different as float32, {got}, of which {left} stay"
        raise ValueError(f"{rule}; subtract an offset from all of them (or use another unit), or drop: [{name}]")


def _refuse_numbers(texts: "Series[str]", where: str) -> None:
    """Refuse numbers that would be categories for a few other texts, or for marks in them."""
    different = texts.dropna().drop_duplicates()
    words = different[pd.to_numeric(different, errors="coerce").isna()]
    marked = [text for text in words if re.search(r"\d", text) and _MARKED.fullmatch(text)]
    count, numbers = len(different), len(different) - len(words)
    either = f"categories: [{texts.name}] takes them as texts, drop: [{texts.name}] leaves them out"
    if marked and numbers + len(marked) >= _ENOUGH * count:
        rule = "holds numbers with marks (decimal comma, thousands separator, percent or currency sign)"
        raise ValueError(f"{where} {rule}, like {marked[0]!r}; write numbers like 1234.5, without marks; {either}")
    if numbers >= _ENOUGH * count:
        got = f"{numbers} of its {count} different values are numbers, and {words.iloc[0]!r} is none"
        raise ValueError(f"{where}: {got}; where that means a missing value, list it in missing_words; {either}")


def _refuse_many(texts: "Series[str]", where: str) -> None:
    count = texts.nunique()
    if count > _MOST_CATEGORIES:
        example = str(texts.dropna().iloc[0])
        rule = f"{where} holds text, like {example!r}, and may have at most {_MOST_CATEGORIES} different ones"
        raise ValueError(f"{rule}, got {count}; names, dates and numbers of rows teach nothing: drop: [{texts.name}]")
