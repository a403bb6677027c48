"""Display: the events of a search in, a live picture on a terminal or plain lines elsewhere out."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, final

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from beats_search.cli.tables import Terminal, front_table
from beats_search.records.event import Began, Carried, Confirming, Ended, Event, Noticed, Reclaimed, Repeated, Retiming
from beats_search.records.outcome import Failed, Finished, Stopped
from beats_search.records.run import RunRecord, TrialRecord
from beats_search.report.measures import duration, plural

if TYPE_CHECKING:
    from beats_search.app import Watch
    from beats_search.space.knobs import SearchSpace

_SECONDS_PER_HOUR: Final = 3600
_MOST_ROWS: Final = 12
_SAME: Final = 0.95


@contextmanager
def display(space: "SearchSpace") -> Iterator["Watch"]:
    """Yield what shows a search's events while it goes on."""
    console = Terminal()
    if not console.is_terminal:
        yield lambda event, _: console.print(_line(event), highlight=False, soft_wrap=True, markup=False)
        return
    picture = Picture(space)
    with Live(get_renderable=picture.render, console=console, refresh_per_second=2, transient=True) as live:

        def watch(event: Event, record: RunRecord) -> None:
            picture.note(event, record)
            if isinstance(event, Ended | Reclaimed | Carried | Noticed):
                live.console.print(_line(event), highlight=False, markup=False)

        yield watch


@final
class Picture:
    """A search as it stands: the trials that run, the front so far, the pace and the time left."""

    def __init__(self, space: "SearchSpace", clock: Callable[[], float] = time.monotonic) -> None:
        """Start before the first event."""
        self._space = space
        self._clock = clock
        self._began = clock()
        self._before = 0.0
        self._record: RunRecord | None = None
        self._doing = "reading data and timing the reference"
        self._under_way: dict[int, str] = {}
        self._ran = 0

    def note(self, event: Event, record: RunRecord) -> None:
        """Take in an event and the run as it stands after it."""
        if self._record is None:
            self._before = record.seconds  # of earlier sittings
        self._record = record
        self._ran += isinstance(event, Ended)
        match event:
            case Began(number=number):
                self._under_way[number] = _line(event)
            case Ended(record=ended):
                self._under_way.pop(ended.number, None)
            case Reclaimed(number=number):
                self._under_way.pop(number, None)
            case Retiming() | Confirming():
                self._doing = _line(event)

    def render(self) -> RenderableType:
        """Return the picture of this moment."""
        from beats_search.report.tables import front_rows

        lines: list[RenderableType] = [Text()]
        rows = front_rows(self._record) if self._record else ()
        if rows:
            title = Text(f"front so far: {len(rows)} models", style="bold")
            lines += [title, front_table(rows[:_MOST_ROWS]), Text()]
        doing = list(self._under_way.values())[:_MOST_ROWS] or [self._doing]
        lines += [Text(f"▶ {each}", overflow="ellipsis", no_wrap=True) for each in doing]
        return Group(*lines, Text(self.status()))

    def status(self) -> str:
        """Return one line: how far, how fast, how long still, and what was answered without running."""
        elapsed, budget, record = self._clock() - self._began, self._space.search, self._record
        done = len(record.trials) if record else 0
        pace = f" · {self._ran * _SECONDS_PER_HOUR / elapsed:.0f} trials/hour" if self._ran else ""
        repeats = f" · {record.duplicates} repeats answered" if record and record.duplicates else ""
        spent = f" · {duration(self._before + elapsed)}"
        left = f" of {duration(budget.timeout)}" if budget.timeout else ""
        return f"{self._space.name}: {done} of {budget.trials} trials{spent}{left}{pace}{repeats}"


def _line(event: Event) -> str:
    match event:
        case Began(number=number, plan=plan):
            from beats_search.report.words import plan_in_words

            return f"trial {number}: {plan_in_words(plan)}"
        case Ended(record=record):
            return _ended(record)
        case Repeated(number=number, of=known):
            return f"trial {number} repeats trial {known} and is answered from it"
        case Reclaimed(number=number):
            return f"trial {number} was cut off; its plan is tried again"
        case Retiming() | Carried() | Confirming() | Noticed():
            return _around(event)


def _around(event: Retiming | Carried | Confirming | Noticed) -> str:
    """Say what happens before the search goes on, or after it."""
    match event:
        case Retiming(count=count):
            return f"timing {plural(count, 'model')} once more, side by side with the reference"
        case Carried(kept=kept, told=told):
            return f"the space was edited: {kept} of {plural(told, 'trial')} still fit it and are kept"
        case Confirming(number=number, index=index, count=count):
            return f"training trial {number} anew with another seed ({index} of {count})"
        case Noticed(text=text):
            return f"notice: {text}"


def _ended(record: TrialRecord) -> str:
    head = f"trial {record.number:>3} "
    match record.outcome:
        case Finished() as found:
            speed = _speed(found.latency.ratio) if record.number else "reference"
            values = f"accuracy {found.accuracy:.4f}  {found.latency.median_ms:9.4f} ms  {speed:>13}"
            return f"{head} {values}  {found.footprint.size_kb:8.1f} kB  {found.executed_as}  ({record.seconds:.0f} s)"
        case Stopped(epoch=0, reason=reason):
            return f"{head} not trained: {reason}"
        case Stopped(reason=reason):
            return f"{head} stopped: {reason}"
        case Failed(stage=stage, reason=reason):
            return f"{head} failed in {stage}: {reason}"


def _speed(ratio: float) -> str:
    if _SAME < ratio < 1 / _SAME:
        return "as fast"
    return f"{1 / ratio:.1f}× faster" if ratio <= 1 else f"{ratio:.1f}× slower"
