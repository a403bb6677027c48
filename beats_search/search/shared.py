"""Shared: the address of a database and the facts of a run in, its ledger out, which several machines may write.

Each run is a study of its own name in the database. Whoever comes first begins it; the tables are those of Optuna,
and beside them those of `leases` and `handover`.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Final

import optuna
from optuna.exceptions import DuplicatedStudyError, StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import Text, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.compiler import compiles

from beats_search.records.errors import CommandError, MissingExtraError
from beats_search.records.plain import to_plain
from beats_search.records.run import REFERENCE
from beats_search.records.search_plan import STORAGE_PASSWORD
from beats_search.search.handover import Handover
from beats_search.search.leases import TABLES, Rhythm, SharedLeases
from beats_search.search.ledger import Ledger, write_facts
from beats_search.search.lock import Lock
from beats_search.search.reading import MARK, RunFacts, read_study
from beats_search.search.storage import closing_storage, create_storage, journalled, kept, open_storage, root, silence

_DRIVERS: Final = {
    "postgresql": ("postgresql+psycopg", "postgresql"),
    "mysql": ("mysql+pymysql", "mysql"),
    "sqlite": ("sqlite", ""),
}
"""Of each kind of database what connects to it, and the extra that installs this."""

_COPY_OF: Final = "copy_of"
_PATIENCE_S: Final = 30
_TRIES: Final = 5
_POLL_S: Final = 0.2


def open_shared(
    address: str,
    facts: RunFacts,
    check: Callable[[RunFacts], None],
    *,
    join: bool,
    lock: Path | None = None,
    rhythm: Rhythm | None = None,
) -> Ledger:
    """Open the study of a run in a database, or begin it there.

    The file `lock` keeps other processes of this machine out of the run's folder. `check` refuses the facts of a
    run that ours cannot go on with. Raises CommandError too when the database cannot be reached, and when other
    processes work on the study, unless this one shall `join` them.
    """
    where = f"{address}, study {facts.name!r}"
    with ExitStack() as stack:
        if lock is not None:
            stack.callback(Lock(lock).release)
        storage = stack.enter_context(_connected(address))
        study_id = _begun(storage, facts, rhythm or Rhythm())
        study, before, account = read_study(where, storage, facts.name)
        check(before)
        leases = SharedLeases(storage.engine, study_id, rhythm or Rhythm())
        others = leases.others()
        if others and not join:
            raise CommandError(
                f"{where}: {len(others)} other {'process works' if len(others) == 1 else 'processes work'} on it; "
                "--join works beside them"
            )
        stack.enter_context(leases)
        ledger = Ledger(where, study, before, account, leases, stack.pop_all())
        ledger.handover = Handover(storage.engine, study_id)
        return ledger


def forget_shared(address: str, name: str) -> None:
    """Delete a study with all that belongs to it, if there is one.

    Raises CommandError while processes work on it, and when it is somebody else's, who uses the database too.
    """
    with _connected(address) as storage:
        known = {study.study_name: study for study in storage.get_all_studies()}
        if name not in known:
            return
        study_id = known[name]._study_id  # noqa: SLF001 - Optuna tells it nowhere else
        begun = known[name].user_attrs.keys() <= {field.name for field in fields(RunFacts)}
        if MARK not in known[name].user_attrs and not (begun and not storage.get_n_trials(study_id)):
            raise CommandError(f"{address}, study {name!r} is none of beats-search, so --fresh does not delete it")
        leases = SharedLeases(storage.engine, study_id, Rhythm())
        if leases.others():
            raise CommandError(f"{address}, study {name!r}: others work on it, so --fresh does not delete it")
        Handover(storage.engine, study_id).forget()
        leases.forget()
        optuna.delete_study(study_name=name, storage=storage)


def copy_shared(address: str, name: str, path: Path) -> None:
    """Write a study as it stands into a file at `path`, for whoever reads the run there."""
    aside = path.with_suffix(".new")
    aside.unlink(missing_ok=True)
    with (
        kept(str(path)),
        _connected(address) as storage,
        closing_storage(create_storage(aside)) as file,
        journalled(file),
    ):
        optuna.copy_study(from_study_name=name, from_storage=storage, to_storage=file)
        optuna.load_study(study_name=name, storage=file).set_user_attr(_COPY_OF, address)
    aside.replace(path)


def is_copy(path: Path) -> bool:
    """Tell whether the study in a file is the copy of a shared one."""
    with closing_storage(open_storage(path)) as storage:
        return any(_COPY_OF in study.user_attrs for study in storage.get_all_studies())


@compiles(Text, "mysql", "mariadb")
def _long_text(*_: object, **__: object) -> str:
    """Let what a trial carries be as long as it is: MySQL's plain text ends at 64 kB."""
    return "LONGTEXT"


@contextmanager
def _connected(address: str) -> Iterator[RDBStorage]:
    """Connect to a database that has all tables in the end; two machines may make them at the same time."""
    silence()
    url = make_url(address)
    driver, extra = _DRIVERS[url.get_backend_name()]
    url = url.set(
        drivername=url.drivername if "+" in url.drivername else driver, password=os.environ.get(STORAGE_PASSWORD)
    )
    waiting = {"connect_args": {"timeout": _PATIENCE_S}} if driver == "sqlite" else {"pool_pre_ping": True}
    for rest in reversed(range(_TRIES)):
        try:
            storage = RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=waiting)
            TABLES.create_all(storage.engine)
            break
        except ImportError as error:
            text = f"search.storage {address}: what connects to it is not installed"
            raise MissingExtraError(f"{text}; pip install 'beats-search[{extra}]'") from error
        except (RuntimeError, StorageInternalError, SQLAlchemyError) as error:
            if not rest:
                raise CommandError(f"search.storage {address} cannot be used: {root(error)}") from error
            time.sleep(1.0 / (1 + rest))
    with closing_storage(storage):
        yield storage


def _begun(storage: RDBStorage, facts: RunFacts, rhythm: Rhythm) -> int:
    """Return the id of a study that somebody has begun wholly, this process if nobody else has."""
    try:
        study = write_facts(storage, facts)
    except DuplicatedStudyError:
        return _awaited(storage, facts.name, rhythm)
    study_id = storage.get_study_id_from_name(facts.name)
    reference = study.ask()
    reference.set_user_attr("plan", to_plain(facts.reference))
    SharedLeases(storage.engine, study_id, rhythm).offer(reference._trial_id, REFERENCE)  # noqa: SLF001
    return study_id


def _awaited(storage: RDBStorage, name: str, rhythm: Rhythm) -> int:
    """Return the id of a study as soon as the process that began it has made trial 0, which it does last."""
    study_id = storage.get_study_id_from_name(name)
    until = time.monotonic() + _PATIENCE_S
    while not SharedLeases(storage.engine, study_id, rhythm).begun():
        if time.monotonic() > until:
            raise CommandError(f"study {name!r}: its beginning was cut off, or it is not ours; --fresh deletes it")
        time.sleep(_POLL_S)
    return study_id
