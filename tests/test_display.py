"""The display: what is written while a search goes on, on a terminal and elsewhere."""

import io
from pathlib import Path

import pytest
from report_runs import realistic_run
from rich.console import Console

from beats_search.cli.display import Picture, display
from beats_search.records.event import Began, Ended, Reclaimed, Repeated
from beats_search.space.schema import read_space

SPACE = read_space(
    "name: shown\ndataset: digits\nmodel: mlp\ntraining: {epochs: 1}\nsearch: {trials: 9, timeout: 2m}\n",
    file=Path("shown.yaml"),
)


class Clock:
    """A clock that the test turns."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def _drawn(picture: Picture) -> str:
    text = io.StringIO()
    Console(file=text, width=120).print(picture.render())
    return text.getvalue()


def test_picture_begins_before_the_first_trial() -> None:
    """Before any event the picture says what is being done and how large the budget is."""
    drawn = _drawn(Picture(SPACE, Clock()))
    assert "reading data" in drawn
    assert "shown: 0 of 9 trials · 0.0 s of 2 min 0 s" in drawn


def test_picture_shows_the_front_the_pace_and_the_trial_that_runs() -> None:
    """After a trial the picture holds the front, trials per hour, and what runs now."""
    clock, run = Clock(), realistic_run()
    picture = Picture(SPACE, clock)
    picture.note(Began(number=1, plan=run.trials[1].plan), run)
    picture.note(Began(number=7, plan=run.trials[1].plan), run)
    picture.note(Began(number=8, plan=run.trials[1].plan), run)
    picture.note(Reclaimed(number=8), run)
    picture.note(Ended(record=run.trials[1]), run)
    clock.now = 36.0
    drawn = _drawn(picture)
    assert "front so far" in drawn
    assert "100 trials/hour" in drawn
    assert "▶ trial 7: " in drawn
    assert drawn.count("▶") == 1
    assert f"{run.duplicates} repeats answered" in drawn


def test_lines_tell_every_kind_of_event(capsys: pytest.CaptureFixture[str]) -> None:
    """Where there is no terminal, each event is one plain line."""
    run = realistic_run()
    with display(SPACE) as watch:
        watch(Began(number=3, plan=run.trials[1].plan), run)
        watch(Repeated(number=4, of=2), run)
        watch(Reclaimed(number=5), run)
        for trial in run.trials:
            watch(Ended(record=trial), run)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("trial 3: ")
    assert "trial 4 repeats trial 2" in lines[1]
    assert "trial 5 was cut off" in lines[2]
    assert len(lines) == 3 + len(run.trials)
    assert any("reference" in line for line in lines)
    assert any("failed in" in line for line in lines)
    assert any(" stopped: " in line for line in lines)
