"""The tree of errors. Only the command line catches it; every leaf knows its exit code.

BeatsError
├── SpaceError            the space file is wrong; holds every mistake at once      exit code 2
├── CommandError          the command asks for what cannot be done                  exit code 2
├── MissingExtraError     an optional library is not installed; names the extra     exit code 3
├── NothingFinishedError  the search ended and no trial finished                    exit code 4
├── SearchEndedError      the search had to end early; what was finished is kept    exit code 130
└── TrialError            raised inside a trial; becomes `Failed`, never an exit code
    ├── DivergedError     the loss stopped being a number
    ├── ExportError       the model cannot be written as a file
    └── ParityError       the exported file does not compute what the model computes
"""

from dataclasses import dataclass
from errno import EDQUOT, ENOSPC
from typing import ClassVar, Final

DISK_FULL: Final = frozenset({ENOSPC, EDQUOT})
"""What an OSError says when there is no room left."""


class BeatsError(Exception):
    """The root: an error whose text is meant for the user."""

    exit_code: ClassVar[int] = 1


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Mistake:
    """One mistake in a space file: where it is, what it is, and what is allowed; line 0 stands for no line."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.text}"


class SpaceError(BeatsError):
    """A space file is wrong. Holds all mistakes, in the order of their lines."""

    exit_code = 2

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        """Join the mistakes, one a line."""
        self.mistakes = tuple(sorted(mistakes))
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))


class CommandError(BeatsError):
    """A command asks for something that cannot be done."""

    exit_code = 2


class MissingExtraError(BeatsError):
    """An optional library is missing; the text names the extra that installs it."""

    exit_code = 3


class NothingFinishedError(BeatsError):
    """A search ended without one finished trial."""

    exit_code = 4


class SearchEndedError(BeatsError):
    """A search had to end before its budget was spent; what had finished is kept."""

    exit_code = 130


class TrialError(BeatsError):
    """A trial cannot go on."""


class DivergedError(TrialError):
    """Training diverged: the loss is not a finite number."""


class ExportError(TrialError):
    """The model cannot be written as a file."""


class ParityError(TrialError):
    """The exported file disagrees with the model that it was exported from."""
