"""CSV: a table in a file into rows to train, to validate and to test with, and what makes them numbers."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, final

from pandas import DataFrame

from beats_search.datasets._columns import check_names, read_columns, read_fields
from beats_search.datasets._strata import read_classes, split_by_class
from beats_search.records.plan import FIXED
from beats_search.tensors.data import DataBundle, Split
from beats_search.tensors.table import table_preprocess

__all__ = ["Csv"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Csv:
    """A table of numbers and text in a file of your own; the column `target` holds the classes.

    Text becomes one-hot categories. A missing number becomes the median of the training rows, a
    missing or unknown text is a category of its own; `missing: drop` leaves such rows out instead.
    """

    path: str = field(metadata={**FIXED, "path": True})
    target: str
    separator: str = ","
    drop: tuple[str, ...] = ()
    missing: Literal["impute", "drop"] = "impute"
    standardize: bool = True
    squares: bool = False
    validation: float = 0.2
    test: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse shares that leave no split, and settings that contradict each other."""
        for name, share in (("validation", self.validation), ("test", self.test)):
            if not 0 < share < 1:
                raise ValueError(f"{name} needs to be a share above 0 and below 1, got {share}")
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation and test need to leave rows to train on, got {self.validation} + {self.test} of them"
            )
        if self.target in self.drop:
            raise ValueError(f"drop needs to leave the target, got {self.target!r} in both")
        if self.squares and not self.standardize:
            raise ValueError("squares needs standardize: true, for it is standardized numbers that are squared")
        if len(self.separator) != 1:
            raise ValueError(f"separator needs to be one character, got {self.separator!r}")

    def load(self) -> DataBundle:
        """Return float rows (n, columns): numbers as they are or NaN, texts as codes or -1.

        Rows are dealt into the splits class by class, in an order drawn from `seed`; rows without a
        target are left out. All statistics are those of the training rows. Raises FileNotFoundError
        when there is no such file, ValueError when nothing can be learned from what is in it.
        """
        file = Path(self.path)
        rows = self._rows(file)
        classes, labels = read_classes(rows[self.target], file)
        parts = split_by_class(labels, self.validation, self.test, self.seed)
        columns, values = read_columns(rows.drop(columns=self.target), parts[0], file)
        train, validation, test = (Split(inputs=values[part], labels=labels[part]) for part in parts)
        preprocess = table_preprocess(train.inputs, columns, standardize=self.standardize, squares=self.squares)
        return DataBundle(
            train=train, validation=validation, test=test, classes=classes, preprocess=preprocess, columns=columns
        )

    def _rows(self, file: Path) -> DataFrame:
        """Return the rows and columns to learn from, as text."""
        table = read_fields(file, self.separator)
        check_names(table, (self.target, *self.drop), file)
        rows = table.drop(columns=list(self.drop)).dropna(subset=[self.target])
        if rows.empty:
            raise ValueError(f"{file} has no row with a value in its target column {self.target!r}")
        kept = rows.dropna() if self.missing == "drop" else rows
        if kept.empty:
            gaps = rows.isna().sum()
            worst = f"{gaps.idxmax()!r} misses a value in {gaps.max()} of {len(rows)} rows"
            raise ValueError(f"{file} has no row left with missing: drop; {worst}: drop: [{gaps.idxmax()}] or impute")
        return kept
