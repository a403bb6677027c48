"""Recording: what a search leaves beside its study, and how much of its time that may take."""

from pathlib import Path

import pytest
from search_toy import Trials, budget, new_ledger, problem

from beats_search.app.recording import saving
from beats_search.records.event import Ended, Event
from beats_search.report import page
from beats_search.search.study import search


@pytest.mark.parametrize(("takes_s", "written"), [(0.0, 30), (1.0, 3)])
def test_tables_take_a_twentieth_of_the_time_at_most(
    takes_s: float, written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They follow each trial where that is quick, and wait 20 times as long as it takes where it is not."""
    now, tables = 0.0, list[float]()

    def write(*_: object) -> None:
        nonlocal now
        now += takes_s
        tables.append(now)

    def pass_time(event: Event, _: object) -> None:
        nonlocal now
        now += 2.0 if isinstance(event, Ended) else 0.0

    monkeypatch.setattr("beats_search.app.recording.time.monotonic", lambda: now)
    monkeypatch.setattr(page, "write_tables", write)
    monkeypatch.setattr(page, "write_results", lambda *_: None)
    with new_ledger(tmp_path / "study.db") as ledger:
        clock = iter(range(10**6))
        search(problem(Trials()), ledger, budget(30), saving(ledger, tmp_path, pass_time), clock=lambda: next(clock))
    assert len(tables) == pytest.approx(written, abs=1)
