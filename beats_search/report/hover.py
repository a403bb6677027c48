"""Hover: a finished trial in, the text that a plot shows over its point out, safe for plotly's own mark-up."""

import html
import textwrap

from beats_search.records.outcome import Finished
from beats_search.records.run import REFERENCE, RunRecord, TrialRecord
from beats_search.report.measures import measured, spoken, times
from beats_search.report.precision import missed_bits
from beats_search.report.tables import speedup
from beats_search.report.timing import remarks
from beats_search.report.words import plan_in_words

_WIDTH = 46


def hover_text(run: RunRecord, trial: TrialRecord, outcome: Finished) -> str:
    """Return the lines about one trial: its number, its values with 95 % intervals, and its plan in words."""
    gain = speedup(run, outcome)
    against = f" · {times(gain)} the reference's speed" if gain is not None and trial.number else ""
    name = "Reference (trial 0)" if trial.number == REFERENCE else f"Trial {trial.number}"
    missed = " and ".join(missed_bits(trial.plan, outcome))
    asked = f" ({missed} asked for)" if missed else ""
    lines = [
        spoken("accuracy", outcome),
        spoken("latency_ms", outcome),
        f"{measured('size_kb', outcome.footprint.size_kb)}, ran in {outcome.executed_as}{asked}",
        *([] if outcome.energy_mj is None else [spoken("energy_mj", outcome)]),
        *remarks(outcome.latency),
        *textwrap.wrap(plan_in_words(trial.plan), _WIDTH),
    ]
    return "<br>".join([f"<b>{plotly_text(name)}</b>{plotly_text(against)}", *map(plotly_text, lines)])


def plotly_text(text: str) -> str:
    """Return a text that plotly shows as it is: plotly reads tags and entities in every label."""
    return html.escape(text, quote=False)
