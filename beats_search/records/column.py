"""A column of a table: what a model that takes raw rows needs to know of one of its inputs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

MISSING_WORDS: Final = ("?", "NA", "N/A", "n/a", "<NA>", "NaN", "nan", "NULL", "null", "None")
"""The texts that stand for no value, like an empty field, unless a data set says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column by name: numbers as they are, or texts as the codes of its categories.

    A missing number is NaN; a missing text, or one that is no category, is -1.
    """

    name: str
    kind: Literal["number", "category"]
    categories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a category column without categories, and numbers with some."""
        if (self.kind == "category") != bool(self.categories):
            rule = "a category column has categories and a number column has none"
            raise ValueError(f"{rule}, got {self.name!r} of kind {self.kind} with {len(self.categories)}")

    @property
    def codes(self) -> Mapping[str, int]:
        """The number that stands for each category."""
        return {category: code for code, category in enumerate(self.categories)}
