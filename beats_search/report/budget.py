"""Budget: a run in, the questions `at most …` and `at least …` that its front can answer out."""

from dataclasses import dataclass

from beats_search.pareto import front_of_run
from beats_search.records.objective import Objective
from beats_search.records.outcome import Finished
from beats_search.records.plain import Plain
from beats_search.records.run import RunRecord, TrialRecord
from beats_search.report.figures import plotted
from beats_search.report.links import Links
from beats_search.report.measures import MEASURES, spoken

_UNITS = {"latency_ms": "ms", "size_kb": "kB", "energy_mj": "mJ"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A limit that a person may set on one objective, to get the member of the front that is best in another."""

    name: str
    question: str
    unit: str
    sign: str
    low: float
    high: float
    start: float
    wanted: str
    wanted_sign: str
    wanted_word: str


def budgets(run: RunRecord, named: int | None = None) -> tuple[Budget, ...]:
    """Return the two questions along the axes of the plot; none while the front is empty.

    The limits start where the trial `named` is the answer, or in the middle of the front.
    """
    front = front_of_run(run)
    if not front:
        return ()
    start = next((outcome for trial, outcome in front if trial.number == named), front[len(front) // 2][1])
    cost, merit = plotted(run)
    values = [outcome for _, outcome in front]
    return _budget(values, start, cost, merit), _budget(values, start, merit, cost)


def budget_members(run: RunRecord, links: Links) -> list[Plain]:
    """Return the front as the script of the page reads it: values, ends of intervals, words, command."""
    return [_member(run, links, trial, outcome) for trial, outcome in front_of_run(run)]


def _budget(front: list[Finished], start: Finished, limited: Objective, wanted: Objective) -> Budget:
    words = MEASURES[limited.name]
    values = [outcome.value(limited.name) for outcome in front]
    return Budget(
        name=limited.name,
        question=f"{words.word.capitalize()} {'at least' if limited.maximize else 'at most'}",
        unit=_UNITS.get(limited.name, ""),
        sign=">=" if limited.maximize else "<=",
        low=min(values),
        high=max(values),
        start=start.value(limited.name),
        wanted=wanted.name,
        wanted_sign=">=" if wanted.maximize else "<=",
        wanted_word=MEASURES[wanted.name].best,
    )


def _member(run: RunRecord, links: Links, trial: TrialRecord, outcome: Finished) -> dict[str, Plain]:
    x, y = plotted(run)
    ends = {objective.name: outcome.interval(objective.name) for objective in (x, y)}
    return {
        "trial": trial.number,
        "at": [outcome.value(x.name), outcome.value(y.name)],
        "values": {name: outcome.value(name) for name in ends},
        "ends": {name: [interval.low, interval.high] for name, interval in ends.items()},
        "words": ", ".join(spoken(name, outcome) for name in (y.name, x.name)),
        "command": links.export(run, trial.number),
    }
