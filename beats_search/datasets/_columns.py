"""Columns: a CSV file in, its fields as text, then as numbers and category codes out."""

from pathlib import Path
from typing import Final

import pandas as pd
import torch
from pandas import DataFrame, Series
from torch import Tensor

from beats_search.plugins import did_you_mean
from beats_search.records.column import Column

_MISSING: Final = frozenset({"", "?", "NA", "N/A", "n/a", "<NA>", "NaN", "nan", "NULL", "null", "None"})
_MOST_CATEGORIES: Final = 100


def read_fields(file: Path, separator: str) -> DataFrame:
    """Return all fields as text, missing ones as NaN; rows are numbered from 1 after the header.

    Raises FileNotFoundError, or ValueError for a file that is no table with different column names.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    try:
        fields = pd.read_csv(
            file, sep=separator, header=None, dtype=str, na_filter=False, skipinitialspace=True, encoding="utf-8-sig"
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8: {error.reason} at byte {error.start}") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(f"{file} is no table: {str(error).strip()}") from error
    stripped = fields.fillna("").apply(lambda column: column.str.strip())
    names = [name or f"column {number}" for number, name in enumerate(stripped.iloc[0], start=1)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{file}: columns need different names, got {', '.join(map(repr, twice))} more than once")
    table: DataFrame = stripped.iloc[1:].set_axis(names, axis="columns")
    return table.mask(table.isin(list(_MISSING)))


def check_names(table: DataFrame, wanted: tuple[str, ...], file: Path) -> None:
    """Raise ValueError unless the table has all the columns that a space names."""
    names = tuple(table.columns)
    for name in wanted:
        if name not in names:
            hint = "; is the separator right?" if len(names) == 1 else ""
            raise ValueError(f"{file} has no column {name!r}{did_you_mean(name, names)}{hint}")


def read_columns(table: DataFrame, train: Tensor, file: Path) -> tuple[tuple[Column, ...], Tensor]:
    """Return what the columns are, and their values as float32 rows (n, columns).

    A column is of numbers when every value in it is one. Categories are those of the rows `train`,
    sorted; other texts and missing ones are -1, missing numbers NaN.
    """
    if not len(table.columns):
        raise ValueError(f"{file} has no column left to learn from beside the target")
    read = [_read_column(table[name], train, f"{file}: column {name!r}") for name in table.columns]
    columns, values = zip(*read, strict=True)
    return columns, torch.stack(values, dim=1)


def _read_column(texts: "Series[str]", train: Tensor, where: str) -> tuple[Column, Tensor]:
    name = str(texts.name)
    known = texts.iloc[train.numpy()].dropna()
    if known.empty:
        raise ValueError(f"{where} has no value in the rows to train on; drop: [{name}] leaves it out")
    numbers = pd.to_numeric(texts, errors="coerce")
    words = texts[texts.notna() & numbers.isna()]
    if words.empty:
        return Column(name=name, kind="number"), _finite(numbers, where)
    _refuse_many(texts, str(words.iloc[0]), where)
    column = Column(name=name, kind="category", categories=tuple(sorted(known.unique())))
    return column, torch.tensor([column.codes.get(text, -1) for text in texts], dtype=torch.float32)


def _finite(numbers: "Series[float]", where: str) -> Tensor:
    values = torch.tensor(numbers.to_numpy(dtype="float64")).float()
    if bool(values.isinf().any()):
        row = numbers.index[int(values.isinf().nonzero()[0])]
        raise ValueError(f"{where} needs numbers that a float32 can hold, got {numbers[row]} in row {row}")
    return values


def _refuse_many(texts: "Series[str]", example: str, where: str) -> None:
    count = texts.nunique()
    if count > _MOST_CATEGORIES:
        rule = f"{where} holds text, like {example!r}, and may have at most {_MOST_CATEGORIES} different ones"
        raise ValueError(f"{rule}, got {count}; names, dates and numbers of rows teach nothing: drop: [{texts.name}]")
