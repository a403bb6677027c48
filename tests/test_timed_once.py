"""Files of one structure are timed once in a search."""

from dataclasses import replace
from pathlib import Path

import pytest
from test_stages import LATENCY, PLAN, REFERENCE

from beats_search.records.outcome import TIMING, Finished, Interval
from beats_search.records.part import Part
from beats_search.trial import run as trial_run
from beats_search.trial.run import Instruments, run_trial
from beats_search.trial.timings import Timings


@pytest.mark.parametrize("narrow", [True, False])
def test_files_of_one_structure_are_timed_once(
    *, narrow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another rate trained has the latency of its like, if that was narrow; another width has its own."""
    ends = Interval(low=0.95, high=1.05) if narrow else Interval(low=0.8, high=1.2)
    taken = [replace(LATENCY, median_ms=float(count), ratio_interval=ends) for count in range(4)]
    left = iter(taken)
    monkeypatch.setattr(trial_run, "measure_latency", lambda *_, **__: next(left))
    wider = replace(PLAN, model=Part(name="toys:net", settings=(("width", 24),)))
    plans = (PLAN, replace(PLAN, training=replace(PLAN.training, lr=0.01)), wider)
    tools = Instruments(timed=Timings())
    found = [run_trial(plan, tmp_path / str(n), REFERENCE, instruments=tools) for n, plan in enumerate(plans)]
    outcomes = [outcome for outcome in found if isinstance(outcome, Finished)]
    assert [outcome.latency for outcome in outcomes] == ([taken[0], taken[0], taken[1]] if narrow else taken[:3])
    assert [TIMING in outcome.reused_seconds for outcome in outcomes] == [False, narrow, False]
    assert len({outcome.sha256 for outcome in outcomes}) == 3
