"""Traces: pairs of trial and outcome in, the marks that a plot draws for them out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import plotly.graph_objects as go

from beats_search.records.outcome import Finished
from beats_search.records.run import RunRecord, TrialRecord
from beats_search.report.axes import Axis
from beats_search.report.hover import hover_text, plotly_text
from beats_search.report.measures import MEASURES
from beats_search.report.palette import LIGHT, faded

Figure: TypeAlias = Any
"""A plotly `Figure`; plotly ships no types."""

Trace: TypeAlias = Any
"""A plotly `Scatter`."""

Pair: TypeAlias = tuple[TrialRecord, Finished]

SYMBOLS: Final = ("circle", "square", "triangle-up", "diamond", "pentagon", "cross")
_FONT: Final = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"
_CLEAR: Final = "rgba(0,0,0,0)"
_FAINT_FRONT: Final = "rgba(0,114,178,0.10)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """The two axes of a plot, and the names of the values that stand on them."""

    x: Axis
    y: Axis
    cost: str
    merit: str


def canvas(axes: Axes) -> Figure:
    """Return an empty figure with its axes: grid lines only, no frame, no title."""
    grid = {"gridcolor": LIGHT["line"], "linecolor": LIGHT["line"], "zeroline": False, "automargin": True}
    return go.Figure(
        layout={
            "template": "none",
            "font": {"family": _FONT, "size": 13, "color": LIGHT["muted"]},
            "paper_bgcolor": _CLEAR,
            "plot_bgcolor": _CLEAR,
            "margin": {"l": 72, "r": 16, "t": 36, "b": 60},
            "modebar": {"bgcolor": _CLEAR, "color": LIGHT["muted"], "activecolor": LIGHT["ink"]},
            "hoverlabel": {
                "align": "left",
                "bgcolor": LIGHT["card"],
                "bordercolor": LIGHT["muted"],
                "font": {"family": _FONT, "size": 13, "color": LIGHT["ink"]},
            },
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
            "showlegend": False,
            "hovermode": "closest",
            "xaxis": {**grid, **axes.x.layout()},
            "yaxis": {**grid, **axes.y.layout()},
        }
    )


def dominated(run: RunRecord, pairs: Sequence[Pair], axes: Axes) -> Trace:
    """Return the points that some other one beats: small and faint."""
    marker = {"size": 7, "color": LIGHT["dominated"], "opacity": 0.75}
    return _points(run, pairs, axes).update(name="dominated", marker=marker)


def members(run: RunRecord, pairs: Sequence[Pair], axes: Axes, named: int | None) -> Trace:
    """Return the points of the front with their 95 % intervals; a third objective becomes their colour."""
    texts = [f"  trial {trial.number}" if trial.number == named else "" for trial, _ in pairs]
    marker = {"size": 11, "color": LIGHT["front"], "line": {"width": 1.5, "color": LIGHT["card"]}}
    return _points(run, pairs, axes).update(
        name="Pareto front",
        mode="markers+text",
        text=texts,
        textposition="bottom right",
        textfont={"color": LIGHT["front"], "size": 13, "weight": 600},
        marker={**marker, **_third(run, pairs, axes)},
        **_error_bars(pairs, axes, LIGHT["front"]),
    )


def reference(run: RunRecord, pair: Pair, axes: Axes) -> Trace:
    """Return the point of the reference, with a symbol, a colour and a label of its own."""
    return _points(run, [pair], axes).update(
        name="reference",
        mode="markers+text",
        text=["reference  "],
        textposition="top left",
        textfont={"color": LIGHT["reference"], "size": 13, "weight": 600},
        marker={
            "size": 14,
            "symbol": "diamond",
            "color": LIGHT["reference"],
            "line": {"width": 1.5, "color": LIGHT["card"]},
        },
        **_error_bars([pair], axes, LIGHT["reference"]),
    )


def of_run(run: RunRecord, pairs: Sequence[Pair], axes: Axes, color: str, symbol: str) -> Trace:
    """Return the front of one run among several, named in the legend."""
    marker = {"size": 10, "color": color, "symbol": symbol, "line": {"width": 1, "color": LIGHT["card"]}}
    trace = _points(run, pairs, axes).update(name=plotly_text(run.name), marker=marker)
    return trace.update(_error_bars(pairs, axes, color))


def step(pairs: Sequence[Pair], axes: Axes, color: str = LIGHT["front"]) -> Trace:
    """Return the attainment line: at each cost, the best that some trial reached at no more than it."""
    ordered = sorted((outcome.value(axes.cost), outcome.value(axes.merit)) for _, outcome in pairs)
    along = [cost for cost, _ in ordered]
    reached = [merit for _, merit in ordered]
    worst, far = axes.y.high if axes.y.floor is None else axes.y.floor, axes.x.high
    if ordered and worst is not None and far is not None:  # up to the first point, and on from the last one
        along, reached = [along[0], *along, far], [worst, *reached, reached[-1]]
    line = {"shape": "hv", "width": 2, "color": color}
    return go.Scatter(x=along, y=reached, mode="lines", line=line, hoverinfo="skip", showlegend=False)


def ring() -> Trace:
    """Return an empty trace that the page moves to the models a budget picks."""
    marker = {"size": 24, "symbol": "circle-open", "color": LIGHT["good"], "line": {"width": 3}}
    return go.Scatter(x=[], y=[], mode="markers", name="picked", marker=marker, hoverinfo="skip")


def growth(numbers: Sequence[int], volumes: Sequence[float], hovers: Sequence[str]) -> Trace:
    """Return a step line over trials."""
    return go.Scatter(
        x=numbers,
        y=volumes,
        mode="lines+markers",
        line={"shape": "hv", "width": 2, "color": LIGHT["front"]},
        marker={"size": 4},
        fill="tozeroy",
        fillcolor=_FAINT_FRONT,
        hovertext=hovers,
        hoverinfo="text",
    )


def _points(run: RunRecord, pairs: Sequence[Pair], axes: Axes) -> Trace:
    return go.Scatter(
        x=[outcome.value(axes.cost) for _, outcome in pairs],
        y=[outcome.value(axes.merit) for _, outcome in pairs],
        customdata=[trial.number for trial, _ in pairs],
        hovertext=[hover_text(run, trial, outcome) for trial, outcome in pairs],
        hoverinfo="text",
        mode="markers",
        cliponaxis=False,
    )


def _error_bars(pairs: Sequence[Pair], axes: Axes, color: str) -> dict[str, Any]:
    return {"error_x": _error_bar(pairs, axes.cost, color), "error_y": _error_bar(pairs, axes.merit, color)}


def _error_bar(pairs: Sequence[Pair], name: str, color: str) -> dict[str, Any]:
    """Return the distances from the values to the ends of their intervals, 0 where an end is on the other side."""
    both = [(outcome.value(name), outcome.interval(name)) for _, outcome in pairs]
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(0.0, ends.high - value) for value, ends in both],
        "arrayminus": [max(0.0, value - ends.low) for value, ends in both],
        "thickness": 1,
        "width": 0,
        "color": faded(color),
    }


def _third(run: RunRecord, pairs: Sequence[Pair], axes: Axes) -> dict[str, Any]:
    extra = [objective.name for objective in run.objectives if objective.name not in {axes.cost, axes.merit}]
    if not extra:
        return {}
    return {
        "color": [outcome.value(extra[0]) for _, outcome in pairs],
        "colorscale": "Cividis",
        "showscale": True,
        "colorbar": {"title": {"text": MEASURES[extra[0]].axis, "side": "right"}, "thickness": 12, "outlinewidth": 0},
    }
