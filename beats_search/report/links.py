"""Links: a run's folder, a trial and a page in, the links that lead somewhere out."""

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from beats_search.records.run import RunRecord
from beats_search.report.front import model_folder

CARD = "card.json"
_UNUSUAL: Final = re.compile(r"[^\w. -]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """Where the models of a run are, seen from a page: `folder` is the run's, `page` the page's file."""

    folder: Path
    page: Path

    def model(self, number: int) -> str | None:
        """Return the link from the page to the model of a trial; None where there is no such file."""
        return next(map(self._link, sorted((self.folder / model_folder(number)).glob("model.*"))), None)

    def card(self, number: int) -> str | None:
        """Return the link from the page to the card of a trial; None where there is no such file."""
        return self._link(self.folder / model_folder(number) / CARD)

    def export(self, run: RunRecord, number: int) -> str:
        """Return the command, ready for a shell, that exports a trial."""
        to = f"{_UNUSUAL.sub('_', run.name)}-{number}"
        return f"beats-search export {_argument(str(self.folder))} {number} --to {_argument(to)}"

    def _link(self, file: Path) -> str | None:
        if not file.is_file():
            return None
        return quote(Path(os.path.relpath(file.resolve(), self.page.resolve().parent)).as_posix())


def _argument(text: str) -> str:
    """Return a word that a shell passes on as it is, and a command does not take for an option."""
    return shlex.quote(f"./{text}" if text.startswith("-") else text)
