"""Reading: what is wrong with a space file, collected place by place, so that all of it is reported at once."""

from dataclasses import dataclass
from pathlib import Path
from typing import final

from beats_search import plugins
from beats_search.records.errors import MissingExtraError, Mistake, SpaceError


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A line of a file; line 0 stands for something without lines, such as a `--set`."""

    file: str
    line: int


@final
class Reading:
    """One reading of one space file: its folder, and the mistakes found so far."""

    def __init__(self, folder: Path) -> None:
        """Begin without mistakes; relative paths in the file start at `folder`."""
        self.folder = folder
        self._mistakes: set[Mistake] = set()
        self._missing: set[Mistake] = set()

    def mistake(self, place: Place, text: str) -> None:
        """Keep one mistake; the same text at the same place counts once."""
        self._mistakes.add(Mistake(file=place.file, line=place.line, text=text))

    def missing_extra(self, place: Place, text: str) -> None:
        """Keep that a part needs a library which is not installed."""
        self._missing.add(Mistake(file=place.file, line=place.line, text=text))

    def unknown(self, place: Place, what: str, word: str, allowed: tuple[str, ...]) -> None:
        """Keep that `word` is not one of `allowed`; `what` reads like `key {} in training`."""
        hint = plugins.did_you_mean(word, allowed) if allowed else "; there are none"
        self.mistake(place, f"unknown {what.format(repr(word))}{hint}")

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found."""
        return not self._mistakes and not self._missing

    def error(self) -> SpaceError | MissingExtraError:
        """Return the error for what was found: a MissingExtraError where libraries are all that is missing."""
        if self._missing and not self._mistakes:
            return MissingExtraError("\n".join(str(missing) for missing in sorted(self._missing)))
        return SpaceError(tuple(self._mistakes | self._missing))
