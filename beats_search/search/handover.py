"""Handover: the file of a trial on one machine in, the same file on another out, by way of their database."""

from contextlib import suppress
from typing import Final, final

from sqlalchemy import Column, ColumnElement, Engine, Integer, LargeBinary, String, Table, delete, insert, select
from sqlalchemy.exc import IntegrityError

from beats_search.search.leases import TABLES

_MODELS: Final = Table(
    "beats_search_models",
    TABLES,
    Column("study_id", Integer, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("name", String(64), nullable=False),
    Column("data", LargeBinary(length=2**32 - 1), nullable=False),
)


@final
class Handover:
    """The files of the trials of one study, by number, for machines that share nothing but its database."""

    def __init__(self, engine: Engine, study_id: int) -> None:
        """Look at the files of a study; its tables are there."""
        self._engine, self._study_id = engine, study_id

    def put(self, number: int, name: str, data: bytes) -> None:
        """Keep a file, in place of what was kept of the same trial; where another process does so too, its own."""
        row = {"study_id": self._study_id, "number": number, "name": name, "data": data}
        with suppress(IntegrityError), self._engine.begin() as connection:
            connection.execute(delete(_MODELS).where(self._of(number)))
            connection.execute(insert(_MODELS).values(**row))

    def get(self, number: int) -> tuple[str, bytes] | None:
        """Return a file's name and what is in it, None where none is kept."""
        with self._engine.begin() as connection:
            rows = select(_MODELS.c.name, _MODELS.c.data).where(self._of(number))
            found = connection.execute(rows).one_or_none()
        return None if found is None else (str(found.name), bytes(found.data))

    def forget(self) -> None:
        """Delete all files of the study."""
        with self._engine.begin() as connection:
            connection.execute(delete(_MODELS).where(_MODELS.c.study_id == self._study_id))

    def _of(self, number: int) -> ColumnElement[bool]:
        return (_MODELS.c.study_id == self._study_id) & (_MODELS.c.number == number)
