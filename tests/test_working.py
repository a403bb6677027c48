"""How many workers there are, and what each of them has of the machine."""

import pytest

from beats_search.app import working
from beats_search.app.working import automatic, environments


@pytest.mark.parametrize(
    ("trials", "devices", "cores", "free_gb", "workers"),
    [
        (40, (), 8, 64.0, 8),
        (3, (), 8, 64.0, 3),
        (40, (), 8, 4.6, 3),
        (40, (), 8, 0.1, 1),
        (40, (), 8, None, 8),
        (40, ("0", "1"), 8, 64.0, 2),
    ],
)
def test_workers_are_as_many_as_have_room(
    trials: int,
    devices: tuple[str, ...],
    cores: int,
    free_gb: float | None,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One for each GPU or else core, no more than there are trials or 1.5 GB of memory for, and at least one."""
    monkeypatch.setattr(working, "_free_bytes", lambda: free_gb and int(free_gb * 1e9))
    assert automatic(trials, devices, cores) == workers


def test_threads_are_divided_and_gpus_dealt(monkeypatch: pytest.MonkeyPatch) -> None:
    """All threads together are as many as cores, unless the user said otherwise; GPUs go round."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert environments(2, (), 5) == ({"OMP_NUM_THREADS": "2"},) * 2
    assert environments(3, (), 2) == ({"OMP_NUM_THREADS": "1"},) * 3
    assert [each["CUDA_VISIBLE_DEVICES"] for each in environments(3, ("4", "6"), 3)] == ["4", "6", "4"]
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert environments(1, (), 2) == ({"OMP_NUM_THREADS": "7"},)


def test_free_memory_is_read_where_it_is_told() -> None:
    """This machine has some."""
    assert (working._free_bytes() or 1) > 0
    assert working.usable_cores() >= 1
