"""Storage: the path of a SQLite file in, an Optuna storage out, with failures told in plain words."""

import logging
import os
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from beats_search.records.errors import DISK_FULL, CommandError, SearchEndedError

_PATIENCE_S: Final = 60.0
_MAGIC: Final = bytes.fromhex("d9d505f920a163d7")
"""What the trailer of a journal that names another one ends with, as does every header."""


def create_storage(path: Path) -> RDBStorage:
    """Return a storage in a new file at `path`."""
    return _storage(path, "rwc")


def open_storage(path: Path) -> RDBStorage:
    """Return the storage in the file at `path`; CommandError when it holds none that can be read."""
    _refuse_foreign(path)
    try:
        return _storage(path, "rw")
    except (RuntimeError, StorageInternalError, SQLAlchemyError) as error:
        raise CommandError(f"{path} cannot be read: {root(error)}; --fresh starts a new run") from error


@contextmanager
def closing_storage(storage: RDBStorage) -> Iterator[RDBStorage]:
    """Close every connection of a storage at the end."""
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


@contextmanager
def journalled(storage: RDBStorage) -> Iterator[None]:
    """Write to a storage in a third of the time within: each write is appended to a file beside it.

    What was written is there when the process is killed, and brought home by whoever opens the storage next; the
    last writes before the machine loses its power may not be. A file system without such a journal changes nothing.
    """
    _pragma(storage, "journal_mode = WAL")
    try:
        yield
    finally:
        storage.remove_session()
        storage.engine.dispose()
        _pragma(storage, "journal_mode = DELETE")


@contextmanager
def kept(where: str) -> Iterator[None]:
    """Turn a study that cannot be written into SearchEndedError; what had finished is there, `where` says."""
    try:
        yield
    except Exception as error:
        if not is_disk_failure(error):
            raise
        rest = "what had finished is kept, and the same command goes on once that is mended"
        raise SearchEndedError(f"{where}: the search cannot be written: {root(error)}; {rest}") from error


def is_disk_failure(error: Exception) -> bool:
    """Tell whether an exception says that the study, or any other file, could not be written."""
    if isinstance(error, OSError):
        return error.errno in DISK_FULL
    return isinstance(error, StorageInternalError | SQLAlchemyError)


def silence() -> None:
    """Keep Optuna's messages about progress off the terminal, which shows its own, and those about interruptions."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)


@contextmanager
def without_experimental_warnings() -> Iterator[None]:
    """Keep Optuna from warning about a feature that this package has chosen and tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def _storage(path: Path, mode: str) -> RDBStorage:
    """Connect by a function of our own, because a path in an URL may hold characters that mean something."""
    silence()
    address = _address(path, mode)

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(address, uri=True, timeout=_PATIENCE_S, check_same_thread=False)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA trusted_schema = OFF")  # the file may be a stranger's
        return connection

    return RDBStorage("sqlite:///study.db", engine_kwargs={"creator": connect})


def _pragma(storage: RDBStorage, setting: str) -> None:
    with suppress(SQLAlchemyError), storage.engine.connect() as connection:
        connection.exec_driver_sql(f"PRAGMA {setting}")


def _refuse_foreign(path: Path) -> None:
    """Look into a file before Optuna does, because Optuna would write its tables into any database.

    Nor is a database opened by another name, or with a journal that names a further file: whoever opens it first
    after a crash lets SQLite delete that file. Ours never do (SQLite's file format, "The Rollback Journal").
    """
    if not path.is_file():
        raise CommandError(f"{path}: there is no run here")
    if path.is_symlink() or _names_another(path.with_name(f"{path.name}-journal")):
        raise CommandError(f"{path} is no study that beats-search has written here: it leads to other files")
    try:
        with closing(sqlite3.connect(_address(path, "rw"), uri=True, timeout=_PATIENCE_S)) as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.DatabaseError as error:
        raise CommandError(f"{path} cannot be read: {error}; --fresh starts a new run") from error
    if verdict != "ok":
        raise CommandError(f"{path} is damaged: {verdict}; --fresh starts a new run")
    if not tables >= {"studies", "study_user_attributes", "trials", "version_info"}:
        raise CommandError(f"{path} is no study of beats-search; --out names another folder")


def _names_another(journal: Path) -> bool:
    """Tell whether a journal ends with the name of a journal of several databases."""
    try:
        with journal.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - len(_MAGIC)))
            return file.read() == _MAGIC
    except FileNotFoundError:
        return False


def _address(path: Path, mode: str) -> str:
    return f"{path.resolve().as_uri()}?mode={mode}"


def root(error: BaseException) -> BaseException:
    """Return what the database itself said: `database or disk is full`, without the statement."""
    while (cause := getattr(error, "orig", None) or error.__cause__) is not None:
        error = cause
    return error
