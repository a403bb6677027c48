"""Linear algebra on one thread."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from beats_search.search.one_thread import on_one_thread


def threads() -> list[int]:
    """Return the threads of every library of linear algebra that is loaded."""
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_all_libraries_compute_on_one_thread_within() -> None:
    """As many as before after it, also where something was raised."""
    before = threads()
    assert before, np.__version__
    with threadpool_limits(limits=2, user_api="blas"), on_one_thread():
        assert threads() == [1] * len(before)
    assert threads() == before
    with pytest.raises(KeyError), on_one_thread():
        raise KeyError
    assert threads() == before
