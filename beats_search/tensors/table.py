"""Table: rows as a user has them in, numbers that a network learns from out: imputed, scaled, one-hot."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from beats_search.records.column import Column


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NumberScale:
    """What a number column's missing values become, and what is then subtracted and divided by."""

    fill: float
    mean: float = 0.0
    std: float = 1.0


@final
class TablePreprocess(nn.Module):
    """Turns raw rows (n, columns) into numbers, squares of the numbers if asked for, and one-hot categories.

    A code that is no category's, -1 above all, becomes zeros only: unknown is a category of its own.
    """

    number_at: Tensor
    fill: Tensor
    mean: Tensor
    std: Tensor
    category_at: Tensor
    code: Tensor

    def __init__(self, columns: Sequence[Column], scales: Sequence[NumberScale], *, squares: bool) -> None:
        """Keep a scale per number column, in their order; ValueError when it is not one for each."""
        super().__init__()
        numbers = [at for at, column in enumerate(columns) if column.kind == "number"]
        if len(scales) != len(numbers):
            raise ValueError(f"a table needs a scale per number column, got {len(scales)} for {len(numbers)}")
        one_hot = [(at, code) for at, column in enumerate(columns) for code in column.codes.values()]
        self.squares = squares
        self.register_buffer("number_at", torch.tensor(numbers, dtype=torch.int64))
        for name in ("fill", "mean", "std"):
            self.register_buffer(name, torch.tensor([getattr(scale, name) for scale in scales]))
        self.register_buffer("category_at", torch.tensor([at for at, _ in one_hot], dtype=torch.int64))
        self.register_buffer("code", torch.tensor([float(code) for _, code in one_hot]))
        self.has_numbers, self.has_categories = bool(numbers), bool(one_hot)

    def forward(self, rows: Tensor) -> Tensor:
        """Return (n, features): the numbers, then their squares, then a 0 or 1 per category."""
        features = []
        if self.has_numbers:
            raw = rows.index_select(1, self.number_at)
            numbers = (torch.where(raw.isnan(), self.fill, raw) - self.mean) / self.std
            features += [numbers, numbers * numbers] if self.squares else [numbers]
        if self.has_categories:
            features.append((rows.index_select(1, self.category_at) == self.code).to(rows.dtype))
        return torch.cat(features, dim=1)


def table_preprocess(rows: Tensor, columns: Sequence[Column], *, standardize: bool, squares: bool) -> TablePreprocess:
    """Return the preprocessing whose statistics are those of training rows (n, columns).

    Missing numbers become the column's median; `standardize` brings the filled columns to mean 0
    and deviation 1, but a constant one, which is not scaled.
    """
    numbers = [rows[:, at].double() for at, column in enumerate(columns) if column.kind == "number"]
    return TablePreprocess(columns, [_scale(values, standardize=standardize) for values in numbers], squares=squares)


def _scale(values: Tensor, *, standardize: bool) -> NumberScale:
    fill = _median(values[~values.isnan()])
    if not standardize:
        return NumberScale(fill=fill)
    filled = values.nan_to_num(fill)
    varies = bool(filled.min() < filled.max())
    return NumberScale(fill=fill, mean=float(filled.mean()), std=float(filled.std()) if varies else 1.0)


def _median(values: Tensor) -> float:
    """Return the middle value, or the mean of the two in the middle, as torch's own quantile does for few values."""
    ordered = values.sort().values
    return float((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2)
