"""Warm: the name of a module in, processes that begin with it imported already out.

One process imports it while the search prepares, and forks for each worker. It is Python's fork server:
it computes nothing and has a single thread, so that nothing is forked in the middle of something.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext

    Beginning: TypeAlias = SpawnContext | ForkServerContext

COLD: Final = multiprocessing.get_context("spawn")
"""Begins processes that have imported nothing."""

_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_OUR_PATH: Final = {"PYTHONSAFEPATH": "1"}
"""The folder that a user happens to be in is not where libraries are imported from."""


@contextlib.contextmanager
def warmed(module: str) -> "Iterator[Callable[[], Beginning]]":
    """Begin to import a module, and yield what gives the context of processes with it.

    Where nobody has asked for that in the end, the import is broken off. Elsewhere than on Linux, whose
    libraries bear to be forked, processes begin with nothing.
    """
    if sys.platform != "linux":
        yield _cold
        return
    from multiprocessing import forkserver  # noqa: PLC0415 - other systems may lack it

    asked: list[Beginning] = []
    warm = multiprocessing.get_context("forkserver")

    def asking() -> "Beginning":
        asked.append(warm)
        return warm

    context: Callable[[], Beginning] = asking
    before = _pid(forkserver)
    warm.set_forkserver_preload([module])
    try:
        begin_importing()
    except OSError:  # it listens at a socket, which not every machine allows
        context = _cold
    try:
        yield context
    finally:
        if not asked and (began := _pid(forkserver)) not in {None, before}:
            with contextlib.suppress(OSError):  # it has ended already
                os.kill(began, signal.SIGKILL)
                os.waitid(os.P_PID, began, os.WEXITED | os.WNOWAIT)  # Python's module sees for itself that it ended


def begin_importing() -> None:
    """Begin the process that imports, unless it is there; Ctrl-C does not reach it."""
    from multiprocessing import forkserver  # noqa: PLC0415 - as above

    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with without_interrupts(), _with({**_ONE_THREAD, **_OUR_PATH, **paths}), without_leaks_told():
        forkserver.ensure_running()


def _cold() -> "Beginning":
    return COLD


@contextlib.contextmanager
def without_interrupts() -> Iterator[None]:
    """Let what begins within ignore Ctrl-C from its first moment on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def without_leaks_told() -> Iterator[None]:
    """Let the process that tidies up after others, which begins with the first of them, do so in silence."""
    told = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), "ignore:resource_tracker"]))
    with _with({"PYTHONWARNINGS": told}):
        yield


@contextlib.contextmanager
def _with(variables: dict[str, str]) -> Iterator[None]:
    """Let the environment have some variables within."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def _pid(module: object) -> int | None:
    """Return the number of the process that imports, None where there is none or Python's module does not tell."""
    found: int | None = getattr(getattr(module, "_forkserver", None), "_forkserver_pid", None)
    return found
