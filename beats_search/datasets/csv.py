"""CSV: a table in a file into rows to train, to validate and to test with, and what makes them numbers."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, final

from pandas import DataFrame, Series

from beats_search.datasets._columns import read_columns
from beats_search.datasets._fields import check_names, read_fields
from beats_search.datasets._strata import read_classes, split_by_class
from beats_search.records.column import MISSING_WORDS
from beats_search.records.plan import FIXED
from beats_search.tensors.data import DataBundle, Split
from beats_search.tensors.table import table_preprocess

__all__ = ["Csv"]

_ADDRESS: Final = re.compile(r"(^|[/\\])(https?|ftp|s3):/")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Csv:
    """A table of numbers and text in a file of your own; the column `target` holds the classes.

    Text becomes one-hot categories. A missing number becomes the median of the training rows, a
    missing or unknown text is a category of its own; `missing: drop` leaves such rows out instead.
    Missing are empty fields and the texts in `missing_words` (a list of your own replaces the usual
    ones), in the target as well, whose rows are left out. `categories` names columns whose numbers
    are names, like zip codes: they are taken as texts.
    """

    path: str = field(metadata={**FIXED, "path": True})
    target: str
    separator: str = ","
    drop: tuple[str, ...] = ()
    missing: Literal["impute", "drop"] = "impute"
    missing_words: tuple[str, ...] = MISSING_WORDS
    categories: tuple[str, ...] = ()
    standardize: bool = True
    squares: bool = False
    validation: float = 0.2
    test: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse shares that leave no split, and settings that contradict each other."""
        if _ADDRESS.search(self.path):
            raise ValueError(f"path needs a file, for only files are read, got the address {self.path}; download it")
        if len(self.separator) != 1 or self.separator in '"\r\n':
            rule = "separator needs to be one character, and no quote or end of a line"
            raise ValueError(f"{rule}, got {self.separator!r}")
        self._check_shares()
        self._check_columns()
        if self.squares and not self.standardize:
            raise ValueError("squares needs standardize: true, for it is standardized numbers that are squared")
        padded = [word for word in self.missing_words if word != word.strip()]
        if padded:
            raise ValueError(f"missing_words need to be without blanks around them, as fields are, got {padded[0]!r}")

    def _check_shares(self) -> None:
        for name, share in (("validation", self.validation), ("test", self.test)):
            if not 0 < share < 1:
                raise ValueError(f"{name} needs to be a share above 0 and below 1, got {share}")
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation and test need to leave rows to train on, got {self.validation} + {self.test} of them"
            )

    def _check_columns(self) -> None:
        for name, columns in (("drop", self.drop), ("categories", self.categories)):
            if self.target in columns:
                raise ValueError(f"{name} needs to leave the target, got {self.target!r} in both")
        both = sorted({*self.drop} & {*self.categories})
        if both:
            raise ValueError(f"categories need to be columns that are not dropped, got {both[0]!r} in both")

    def load(self) -> DataBundle:
        """Return float rows (n, columns): numbers as they are or NaN, texts as codes or -1.

        Rows are dealt into the splits class by class, in an order drawn from `seed`; rows without a
        target are left out. All statistics are those of the training rows. Raises FileNotFoundError
        when there is no such file, ValueError when nothing can be learned from what is in it.
        """
        file = Path(self.path)
        fields = read_fields(file, self.separator)
        check_names(fields, (self.target, *self.drop, *self.categories), file)
        note = self._missing_in_words(fields[self.target])
        rows = self._rows(fields, file, note)
        classes, labels = read_classes(rows[self.target], file, note)
        parts = split_by_class(labels, self.validation, self.test, self.seed)
        columns, values = read_columns(rows.drop(columns=self.target), parts[0], self.categories, file)
        train, validation, test = (Split(inputs=values[part], labels=labels[part]) for part in parts)
        preprocess = table_preprocess(train.inputs, columns, standardize=self.standardize, squares=self.squares)
        return DataBundle(
            train=train, validation=validation, test=test, classes=classes, preprocess=preprocess, columns=columns
        )

    def _missing_in_words(self, target: "Series[str]") -> str:
        """Return which texts of the target count as missing, to be put behind a message."""
        words = [repr(word) for word in self.missing_words if (target == word).any()]
        return f"; {', '.join(words)} counted as missing, see missing_words" if words else ""

    def _rows(self, fields: DataFrame, file: Path, note: str) -> DataFrame:
        """Return the rows and columns to learn from, as text, missing values as NaN."""
        known = fields.mask(fields.isin(["", *self.missing_words]))
        rows = known.drop(columns=list(self.drop)).dropna(subset=[self.target])
        if rows.empty:
            raise ValueError(f"{file} has no row with a value in its target column {self.target!r}{note}")
        kept = rows.dropna() if self.missing == "drop" else rows
        if kept.empty:
            gaps = rows.isna().sum()
            worst = f"{gaps.idxmax()!r} misses a value in {gaps.max()} of {len(rows)} rows"
            raise ValueError(f"{file} has no row left with missing: drop; {worst}: drop: [{gaps.idxmax()}] or impute")
        return kept
