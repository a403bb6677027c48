"""One thread: linear algebra within, computed without further threads out.

Matrices of some hundred rows gain nothing from a second thread, and where trainings hold the other
cores, each of thousands of products waits for one: with two of two cores busy, 36 proposals took 79 s
on two threads and 11 s on one (2 Zen 4 cores, a single run each). Sums are also the same on any
number of cores.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


@contextmanager
def on_one_thread() -> Iterator[None]:
    """Let NumPy and SciPy compute on one thread within, in the whole process, and on as many as before after."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield
