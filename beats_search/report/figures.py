"""Figures: a run in, its plotly figures out, in the light colours of `palette`."""

from collections.abc import Sequence
from itertools import cycle, pairwise

from beats_search.pareto import Point, front, front_of_run, hypervolume, point_of
from beats_search.records.objective import Objective
from beats_search.records.run import REFERENCE, RunRecord
from beats_search.report import traces
from beats_search.report.axes import Axis, focused_axis, whole_axis
from beats_search.report.front import reference_of
from beats_search.report.measures import MEASURES, duration, significant
from beats_search.report.palette import RUNS
from beats_search.report.thinning import apart
from beats_search.report.traces import Axes, Figure, Pair

_FEW = 12
_MANY = 1_000


def pareto_figure(run: RunRecord, named: int | None = None) -> Figure:
    """Return the finished trials by two objectives: the front, the dominated ones, the reference.

    The trial `named` gets its number written beside its point. A third objective colours the front.
    Of very many dominated ones, those are drawn that can be told apart.
    """
    front, reference, axes = front_of_run(run), reference_of(run), _axes_of(run)
    members = [pair for pair in front if pair[0].number != REFERENCE]
    beaten = _dominated(run)
    figure = traces.canvas(axes)
    figure.add_trace(traces.dominated(run, [beaten[index] for index in apart(_places(beaten, axes), axes)], axes))
    if _is_a_line(run):
        figure.add_trace(traces.step(front, axes))
    figure.add_trace(traces.members(run, members, axes, named))
    if reference:
        figure.add_trace(traces.reference(run, reference, axes))
    figure.add_trace(traces.ring())
    return figure


def comparison_figure(runs: Sequence[RunRecord]) -> Figure:
    """Return the fronts of several runs of equal objectives in one plot, one colour and symbol a run."""
    fronts = [front_of_run(run) for run in runs]
    members = [pair for front in fronts for pair in front]
    axes = _axes(runs[0], members, members)
    figure = traces.canvas(axes)
    for run, pairs, color, symbol in zip(runs, fronts, cycle(RUNS), cycle(traces.SYMBOLS), strict=False):
        if _is_a_line(run):
            figure.add_trace(traces.step(pairs, axes, color))
        figure.add_trace(traces.of_run(run, pairs, axes, color, symbol))
    return figure.update_layout(showlegend=True)


def plotted(run: RunRecord) -> tuple[Objective, Objective]:
    """Return the objectives on x and on y: accuracy stands on y where it is one, the first other on x."""
    merits = [objective for objective in run.objectives if objective.maximize]
    costs = [objective for objective in run.objectives if not objective.maximize]
    upright = (*merits, *costs[1:])[0]
    return costs[0], upright


def unseen(run: RunRecord) -> int:
    """Return how many finished trials lie below the part of the Pareto plot that is shown at first."""
    axes = _axes_of(run)
    low = axes.y.low
    return sum(low is not None and outcome.value(axes.merit) < low for _, outcome in run.finished())


def covered(run: RunRecord) -> int:
    """Return how many dominated trials the Pareto plot does not draw, because others are drawn where they lie."""
    beaten, axes = _dominated(run), _axes_of(run)
    return len(beaten) - len(apart(_places(beaten, axes), axes))


def _dominated(run: RunRecord) -> list[Pair]:
    on_front = {trial.number for trial, _ in front_of_run(run)}
    return [pair for pair in run.finished() if pair[0].number not in on_front | {REFERENCE}]


def _places(pairs: Sequence[Pair], axes: Axes) -> list[Point]:
    return [(outcome.value(axes.cost), outcome.value(axes.merit)) for _, outcome in pairs]


def _is_a_line(run: RunRecord) -> bool:
    """Tell whether the front is a line in the plane of the plot: with a third objective it is not."""
    return len(run.objectives) == 2  # noqa: PLR2004 - a plane has two


def _axes_of(run: RunRecord) -> Axes:
    """Return the axes of the Pareto plot."""
    reference = reference_of(run)
    return _axes(run, run.finished(), [*front_of_run(run), *([reference] if reference else [])])


def _axes(run: RunRecord, shown: Sequence[Pair], leading: Sequence[Pair]) -> Axes:
    cost, merit = plotted(run)
    x = whole_axis(MEASURES[cost.name].axis, [*_values(shown, cost), *_ends(leading, cost)])
    title, upright, ends = MEASURES[merit.name].axis, _values(shown, merit), _ends(leading, merit)
    y = focused_axis(title, upright, ends) if merit.maximize else whole_axis(title, [*upright, *ends])
    return Axes(x=x, y=y, cost=cost.name, merit=merit.name)


def _values(pairs: Sequence[Pair], objective: Objective) -> list[float]:
    return [outcome.value(objective.name) for _, outcome in pairs]


def _ends(pairs: Sequence[Pair], objective: Objective) -> list[float]:
    intervals = [outcome.interval(objective.name) for _, outcome in pairs]
    return [end for interval in intervals for end in (interval.low, interval.high)]


def hypervolume_figure(run: RunRecord) -> Figure:
    """Return how the hypervolume of the front grew, trial by trial; of very many, by those that it grew with."""
    every = list(zip(run.trials, hypervolumes(run), strict=True))
    told = every
    if len(every) > _MANY:
        steps = [after for before, after in pairwise(every) if after[1] != before[1]]
        told = [every[0], *steps, every[-1]]
    hovers = [
        f"<b>after trial {trial.number}</b><br>{significant(volume)}<br>"
        f"{duration(trial.began_s + trial.seconds)} of search"
        for trial, volume in told
    ]
    axes = Axes(x=Axis(title="Trial"), y=Axis(title="Hypervolume"), cost="trial", merit="hypervolume")
    figure = traces.canvas(axes)
    numbers, volumes = [trial.number for trial, _ in told], [volume for _, volume in told]
    figure.add_trace(traces.growth(numbers, volumes, hovers))
    figure.update_xaxes(dtick=1 if len(run.trials) <= _FEW else None)
    return figure.update_yaxes(rangemode="tozero")


def hypervolumes(run: RunRecord) -> list[float]:
    """Return the hypervolume of the front after each trial, in the product of the objectives' units."""
    corner = tuple(run.reference_point[objective.name] for objective in run.objectives)
    points: list[Point] = []
    grown = [0.0]
    feasible = {trial.number: outcome for trial, outcome in run.feasible()}
    for trial in run.trials:
        if trial.number in feasible:
            points.append(point_of(feasible[trial.number], run.objectives))
            points = [points[index] for index in front(points, run.objectives)]
            grown.append(hypervolume(points, corner, run.objectives))
        else:
            grown.append(grown[-1])
    return grown[1:]
