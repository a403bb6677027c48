"""Leases: a database in, which process holds which trial out, for studies that several machines work on.

A process holds a trial as long as it says, every `beat_s`, that it is alive; after `grace_s` of silence others
may take the trial over. Each step is one statement that the database carries out for one process alone, by its
own clock. A plan belongs to the trial that claimed it first, so that no two machines try the same one.
"""

import calendar
import contextlib
import os
import platform
import threading
import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol, final

from sqlalchemy import (
    Column,
    Connection,
    Double,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

TABLES: Final = MetaData()
_LEASES: Final = Table(
    "beats_search_leases",
    TABLES,
    Column("trial_id", Integer, primary_key=True, autoincrement=False),
    Column("study_id", Integer, nullable=False, index=True),
    Column("number", Integer, nullable=False),
    Column("plan", String(128)),
    Column("owner", String(200), nullable=False),
    Column("beat", Double, index=True),
    UniqueConstraint("study_id", "plan"),
)
"""Of each trial its holder and the holder's last sign of life, none once the trial has ended; and its plan."""

_RELEASED: Final = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """A holder gives a sign of life every `beat_s` seconds, and counts as gone after `grace_s` without one."""

    beat_s: float = 10.0
    grace_s: float = 60.0


class Leases(Protocol):
    """Which process holds which trial, by the id that the storage gave it."""

    shared: bool
    """Whether other processes may work on the study."""

    def take(self, trial_id: int, number: int) -> None:
        """Hold a trial that this process has just made."""

    def claim(self, trial_id: int, plan: str) -> int | None:
        """Let a plan, by its fingerprint, belong to a trial; return the number of the trial that it belongs to."""

    def holds(self, trial_id: int) -> bool:
        """Tell whether this process holds a trial still, and go on holding it."""

    def adopt(self, trial_id: int) -> bool:
        """Hold a trial that nobody else holds any more; tell whether this process does now."""

    def vanished(self) -> list[int]:
        """Return the ids of the open trials that other processes held and hold no more."""

    def release(self, trial_id: int) -> None:
        """Let others take an open trial over."""

    def end(self, trial_id: int, *, void: bool = False) -> None:
        """Note that a trial has ended; the plan of a void one is free again."""


@final
class SoleLeases:
    """This process alone works on the study: it holds all."""

    shared = False

    def take(self, trial_id: int, number: int) -> None:
        """Note nothing."""

    def claim(self, trial_id: int, plan: str) -> int | None:
        """Let it be so."""

    def holds(self, trial_id: int) -> bool:
        """Return True."""
        del trial_id
        return True

    def adopt(self, trial_id: int) -> bool:
        """Return True."""
        del trial_id
        return True

    def vanished(self) -> list[int]:
        """Return none: what a process that died has left is settled at the start."""
        return []

    def release(self, trial_id: int) -> None:
        """Note nothing."""

    def end(self, trial_id: int, *, void: bool = False) -> None:
        """Note nothing."""


@final
class SharedLeases:
    """The leases of one study in a database, as one process sees them; a context manager that gives signs of life."""

    shared = True

    def __init__(self, engine: Engine, study_id: int, rhythm: Rhythm) -> None:
        """Look at the leases of a study; its tables are there."""
        self._engine, self._study_id, self._rhythm = engine, study_id, rhythm
        self._owner = f"{_here()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
        self._of_study = _LEASES.c.study_id == study_id
        self._ours = (_LEASES.c.owner == self._owner) & _LEASES.c.beat.is_not(None)
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> "SharedLeases":
        """Begin to give signs of life."""
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Give no more signs of life, and let go of what is still held."""
        self._ended.set()
        self._heart.join()
        with contextlib.suppress(SQLAlchemyError), self._engine.begin() as connection:
            connection.execute(update(_LEASES).where(self._of_study, self._ours).values(beat=_RELEASED))

    def take(self, trial_id: int, number: int) -> None:
        """Hold a trial that this process has just made."""
        with self._engine.begin() as connection:
            row = {"trial_id": trial_id, "study_id": self._study_id, "number": number}
            connection.execute(insert(_LEASES).values(**row, owner=self._owner, beat=_now(connection)))

    def offer(self, trial_id: int, number: int) -> None:
        """Let whoever comes first hold a trial that has just been made."""
        self.take(trial_id, number)
        self.release(trial_id)

    def claim(self, trial_id: int, plan: str) -> int | None:
        """Let a plan, by its fingerprint, belong to a trial; return the number of the trial that it belongs to."""
        whose = select(_LEASES.c.number).where(self._of_study, _LEASES.c.plan == plan)
        while True:
            try:
                with self._engine.begin() as connection:
                    connection.execute(update(_LEASES).where(_LEASES.c.trial_id == trial_id).values(plan=plan))
            except IntegrityError:
                with self._engine.begin() as connection:
                    found: int | None = connection.scalars(whose).one_or_none()
                if found is not None:  # else it has become free in between
                    return found
            else:
                return None

    def holds(self, trial_id: int) -> bool:
        """Tell whether this process holds a trial still, and go on holding it."""
        with self._engine.begin() as connection:
            ours = update(_LEASES).where(_LEASES.c.trial_id == trial_id, self._ours)
            return connection.execute(ours.values(beat=_now(connection))).rowcount == 1

    def adopt(self, trial_id: int) -> bool:
        """Hold a trial that nobody else holds any more; tell whether this process does now."""
        with self._engine.begin() as connection:
            now = _now(connection)
            free = self._ours | (_LEASES.c.beat < now - self._rhythm.grace_s)
            taken = update(_LEASES).where(_LEASES.c.trial_id == trial_id, free)
            return connection.execute(taken.values(owner=self._owner, beat=now)).rowcount == 1

    def vanished(self) -> list[int]:
        """Return the ids of the open trials that other processes held and hold no more."""
        with self._engine.begin() as connection:
            silent = _LEASES.c.beat < _now(connection) - self._rhythm.grace_s
            others = _LEASES.c.owner != self._owner
            return list(connection.scalars(select(_LEASES.c.trial_id).where(self._of_study, silent, others)))

    def release(self, trial_id: int) -> None:
        """Let others take an open trial over."""
        with self._engine.begin() as connection:
            ours = update(_LEASES).where(_LEASES.c.trial_id == trial_id, self._ours)
            connection.execute(ours.values(beat=_RELEASED))

    def end(self, trial_id: int, *, void: bool = False) -> None:
        """Note that a trial has ended; the plan of a void one is free again."""
        noted = {"beat": None, "plan": None} if void else {"beat": None}
        with self._engine.begin() as connection:
            connection.execute(update(_LEASES).where(_LEASES.c.trial_id == trial_id).values(noted))

    def begun(self) -> bool:
        """Tell whether there are leases: the first one is made when the study is whole."""
        with self._engine.begin() as connection:
            return connection.execute(select(_LEASES.c.number).where(self._of_study).limit(1)).first() is not None

    def others(self) -> list[str]:
        """Return the other processes that give signs of life; what one of this machine that has died held is free."""
        with self._engine.begin() as connection:
            alive = _LEASES.c.beat >= _now(connection) - self._rhythm.grace_s
            owners = set(connection.scalars(select(_LEASES.c.owner).where(self._of_study, alive)).all())
            dead = [owner for owner in owners if _has_died(owner)]
            connection.execute(
                update(_LEASES).where(self._of_study, alive, _LEASES.c.owner.in_(dead)).values(beat=_RELEASED)
            )
        return sorted(owners - {self._owner, *dead})

    def forget(self) -> None:
        """Delete all that is noted of the study here."""
        with self._engine.begin() as connection:
            connection.execute(delete(_LEASES).where(self._of_study))

    def _beat(self) -> None:
        """Give signs of life until the end; one that the network has swallowed is followed by the next."""
        while not self._ended.wait(self._rhythm.beat_s):
            with contextlib.suppress(SQLAlchemyError), self._engine.begin() as connection:
                held = update(_LEASES).where(self._of_study, self._ours, _LEASES.c.beat > _RELEASED)
                connection.execute(held.values(beat=_now(connection)))


def _now(connection: Connection) -> float:
    """Return the moment by the database's clock, in seconds; machines may have others, and summer time has two."""
    clock = func.utc_timestamp() if connection.dialect.name in {"mysql", "mariadb"} else func.now()
    moment: datetime = connection.execute(select(clock)).scalar_one()
    return moment.timestamp() if moment.tzinfo else float(calendar.timegm(moment.timetuple()))


def _here() -> str:
    """Return a name for the place in which process numbers are unique: this machine since its start, or a container."""
    place = platform.node()
    with contextlib.suppress(OSError):
        place += f":{Path('/proc/sys/kernel/random/boot_id').read_text(encoding='ascii').strip()}"
        place += f":{Path('/proc/self/ns/pid').stat().st_ino}"
    return place


def _has_died(owner: str) -> bool:
    """Tell whether an owner was a process of this place that is there no more."""
    place, process, _ = owner.rsplit("/", 2)
    if place != _here() or os.name != "posix":
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
