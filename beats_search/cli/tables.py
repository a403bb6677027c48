"""Tables: results of app in, what a terminal shows out."""

import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, final

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table

from beats_search.cli.plain_text import printable
from beats_search.report.measures import MEASURES, duration, measured

if TYPE_CHECKING:
    from beats_search.app import Candidate, CheckResult, RunResult
    from beats_search.plugins import PartLine
    from beats_search.records.run import RunRecord
    from beats_search.report.tables import FrontRow
    from beats_search.search.replay import ReplayRow


@final
class Terminal(Console):
    """A console whose reader may leave, as `head` does: nothing more is printed then, and work goes on.

    Control characters of a text are not printed, nor links: a run of a stranger shall not steer the terminal.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Return what a renderable shows, without links and the control characters in its texts."""
        for segment in super().render(renderable, options):
            style = segment.style.update_link(None) if segment.style and segment.style.link else segment.style
            yield segment if segment.control else Segment(printable(segment.text), style)

    def on_broken_pipe(self) -> None:
        """Print into nothing from now on, instead of ending the process."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def front_table(rows: Sequence["FrontRow"]) -> Table:
    """Return the values of a front's members as a table."""
    others = [MEASURES[name].word for name, _ in rows[0].others] if rows else []
    table = _table("trial", "accuracy", "test", "latency ms", "faster", "size kB", *others)
    table.add_column("runs as", no_wrap=True)
    anew = any(row.again for row in rows)
    if anew:
        table.add_column("anew, other seeds", no_wrap=True)
    if any(row.ties for row in rows):
        table.add_column("as fast as", no_wrap=True)
    for row in rows:
        table.add_row(
            str(row.trial),
            f"{row.accuracy:.4f}",
            "–" if row.test_accuracy is None else f"{row.test_accuracy:.4f}",
            f"{row.latency_ms:.4f} ±{_half_width(row):.0%}",
            "–" if row.speedup is None else f"{row.speedup:.1f}×",
            f"{row.size_kb:.1f}",
            *(measured(name, value) for name, value in row.others),
            escape(row.executed_as),
            *([row.again] if anew else []),
            *([", ".join(map(str, row.ties))] if row.ties else []),
        )
    return table


def print_result(result: "RunResult") -> None:
    """Print why a search ended, its front, and where the page is."""
    from beats_search.report.answer import answer
    from beats_search.report.savings import savings_in_words
    from beats_search.report.tables import front_rows

    console = Terminal()
    console.print(f"\n{escape(result.ending)}", highlight=False)
    console.print(escape(answer(result.record).text), style="bold", highlight=False)
    _print_rows(console, result.record, front_rows(result.record))
    for saved in savings_in_words(result.record):
        console.print(f"\n{escape(saved)}", highlight=False)
    page = f"\npage    {result.folder / 'report.html'}"
    console.print(page, highlight=False, soft_wrap=True, markup=False)
    files = sorted({outcome.model_file for _, outcome in result.record.finished()})
    models = f"models  {result.folder / 'models'}/<trial>/{' or '.join(files)}"
    console.print(models, highlight=False, soft_wrap=True, markup=False)


def print_front(record: "RunRecord", rows: Sequence["FrontRow"]) -> None:
    """Print a run's front."""
    _print_rows(Terminal(), record, rows)


def print_check(result: "CheckResult") -> None:
    """Print the size of a space, its knobs, what some of its plans would be, and the time it will take."""
    console = Terminal()
    plans = "endlessly many" if result.plans is None else f"{result.plans:,}"
    console.print(f"{escape(result.space.name)}: {plans} plans, {len(result.knobs)} knobs", highlight=False)
    knobs = Table(box=None, pad_edge=False, show_header=False)
    for path, values in result.knobs:
        knobs.add_row(f"  {escape(path)}", escape(values))
    console.print(knobs)
    for notice in result.notices:
        console.print(f"\nnotice: {escape(notice)}", highlight=False)
    console.print("\nuntrained, exported and measured:", highlight=False)
    console.print(_candidates(result))
    budget = result.space.search
    hours = f", {duration(budget.timeout)} at most" if budget.timeout else ""
    total = duration(budget.trials * result.trial_seconds)
    console.print(
        f"\nabout {duration(result.trial_seconds)} a trial; {budget.trials} trials: about {total}{hours}",
        highlight=False,
    )


def print_replay(rows: Sequence["ReplayRow"]) -> None:
    """Print how fast samplers find the front of a finished run."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("sampler")
    for title in ("at 25 %", "at 50 %", "at 75 %", "trials to 90 %", "trials to 95 %"):
        table.add_column(title, justify="right")
    for row in rows:
        shares = (f"{share:.3f}" for share in (row.share_at_25, row.share_at_50, row.share_at_75))
        table.add_row(row.sampler, *shares, f"{row.trials_to_90:g}", f"{row.trials_to_95:g}")
    console = Terminal()
    console.print(table)
    if rows:
        what = f"medians over {rows[0].seeds} seeds, {rows[0].trials} finished trials as the table"
        console.print(f"share of the run's hypervolume; {what}", highlight=False)


def print_parts(lines: Sequence["PartLine"]) -> None:
    """Print every part with one line, grouped by shelf."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("shelf", "part", "what it is"):
        table.add_column(title)
    shelf = ""
    for line in lines:
        table.add_row("" if line.shelf == shelf else line.shelf, line.name, escape(line.summary))
        shelf = line.shelf
    Terminal().print(table)


def _print_rows(console: Console, record: "RunRecord", rows: Sequence["FrontRow"]) -> None:
    from beats_search.report.timing import retiming_in_words

    finished = len(record.finished())
    counts = f"{len(record.trials)} trials, {finished} finished, {len(rows)} on the front"
    console.print(f"{escape(record.name)}: {counts}", highlight=False)
    if rows:
        console.print(front_table(rows))
        if retimed := retiming_in_words(record):
            console.print(f"\n{retimed}", highlight=False)
        console.print(_plans([(str(row.trial), row.plan) for row in rows]))


def _table(*titles: str) -> Table:
    """Return a table of numbers without lines."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _plans(plans: Sequence[tuple[str, str]]) -> Table:
    """Return what the rows of a table stand for, each in a line that may be long."""
    legend = Table.grid(padding=(0, 2))
    legend.add_column(justify="right", no_wrap=True, min_width=5)
    legend.add_row("", "")
    for name, words in plans:
        legend.add_row(name, escape(words))
    return legend


def _candidates(result: "CheckResult") -> Group:
    from beats_search.report.words import plan_in_words

    goals, limits = result.space.objectives, result.space.constraints
    works = "macs" in [*(goal.name for goal in goals), *(limit.name for limit in limits)]
    table = _table("plan", "latency ms", "faster", "size kB", "a trial", *([MEASURES["macs"].word] if works else []))
    names = ["ref", *(str(number) for number, _ in enumerate(result.candidates, start=1))]
    candidates = (result.reference, *result.candidates)
    for name, candidate in zip(names, candidates, strict=True):
        work = measured("macs", candidate.probe.footprint.macs) if candidate.probe else "–"
        table.add_row(name, *_candidate_cells(candidate), *([work] if works else []))
    problems = [f": {candidate.problem}" if candidate.problem else "" for candidate in candidates]
    words = [plan_in_words(candidate.plan) + problem for candidate, problem in zip(candidates, problems, strict=True)]
    return Group(table, _plans(list(zip(names, words, strict=True))))


def _candidate_cells(candidate: "Candidate") -> tuple[str, ...]:
    if candidate.probe is None:
        return ("–", "–", "–", "–")
    latency, footprint = candidate.probe.latency, candidate.probe.footprint
    faster = f"{1 / latency.ratio:.1f}×"
    return (f"{latency.median_ms:.4f}", faster, f"{footprint.size_kb:.1f}", duration(candidate.seconds))


def _half_width(row: "FrontRow") -> float:
    return (row.latency_interval_ms.high - row.latency_interval_ms.low) / (2 * row.latency_ms)
