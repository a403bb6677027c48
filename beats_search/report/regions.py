"""Regions: a run in, how often each region of its networks was updated out, ready for the script of the page.

One trial is drawn at a time, so the plot is sent once, empty, and every trial as columns of numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import plotly.graph_objects as go
from markupsafe import Markup

from beats_search.pareto import front_of_run
from beats_search.records.outcome import EpochScore, Failed, Finished, Stopped
from beats_search.records.plain import Plain, to_plain
from beats_search.records.plan import AccumulationPlan
from beats_search.records.run import REFERENCE, RunRecord, TrialRecord
from beats_search.report.axes import Axis
from beats_search.report.embedding import script_json, to_script_json
from beats_search.report.hover import plotly_text
from beats_search.report.measures import measured, plural, significant
from beats_search.report.palette import LIGHT
from beats_search.report.traces import Axes, Figure, canvas
from beats_search.report.words import accumulation_in_words, plan_in_words, technique_in_words

MOST_TRIALS: Final = 24
MOST_CELLS: Final = 30_000
"""How many trials, and regions × epochs of them all, a page holds: 0.5 MB at most."""

_TICK_LENGTH: Final = 22
_NAME_LENGTH: Final = 60
_MOST_EPOCH_TICKS: Final = 12
_EPOCH_STEPS: Final = (1, 2, 5)
_SHARE_STEPS: Final = 20
_NARROW_TICK_LENGTH: Final = 12
_FACTS: Final = (
    "Regions",
    "Micro-batches",
    "Skipped",
    "Optimizer steps",
    "Region updates",
    "Updates saved",
    "Mean agreement",
    "Mean wait (micro-batches)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialWords:
    """What is said of a trial beside its numbers: its plan, when its regions are updated, what is not counted."""

    plan: str
    rule: str
    recovery: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionSection:
    """Updates by region: an empty plot, and the trials that it can show, by their labels and as JSON.

    Colours reach from no update to the share `most` of the micro-batches. `words` and `facts`
    are those of the first trial; `note` says how many trials are left out, if any.
    """

    figure: Markup
    most: float
    labels: tuple[str, ...]
    words: TrialWords
    facts: tuple[tuple[str, str], ...]
    trials: Markup
    note: str


def region_section(run: RunRecord, named: int | None = None) -> RegionSection | None:
    """Return the trials whose regions were updated each at its own time; None where there is none.

    The trial `named` comes first, then the front, then the other finished ones, then the stopped
    ones, the more accurate first.
    """
    ranked = _ranked(run, named)
    if not ranked:
        return None
    shown = ranked[: _affordable([len(scores) * len(_names(scores)) for _, scores in ranked])]
    curves = [scores for _, scores in shown]
    left_out = len(ranked) - len(shown)
    on_front = {trial.number for trial, _ in front_of_run(run)}
    most = _most(curves)
    return RegionSection(
        figure=script_json(_figure(most).to_json()),
        most=most,
        labels=tuple(_label(trial, on_front) for trial, _ in shown),
        words=_words(shown[0][0]),
        facts=tuple(zip(_FACTS, _facts(curves[0]), strict=True)),
        trials=to_script_json([{"words": to_plain(_words(trial)), **_columns(scores)} for trial, scores in shown]),
        note=f"Left out, to keep the page light: {plural(left_out, 'trial')}." if left_out else "",
    )


def _ranked(run: RunRecord, named: int | None) -> list[tuple[TrialRecord, tuple[EpochScore, ...]]]:
    on_front = {trial.number for trial, _ in front_of_run(run)}
    told = [(trial, _told(trial)) for trial in run.trials]
    return sorted(
        ((trial, scores) for trial, scores in told if scores),
        key=lambda pair: (
            pair[0].number != named,
            pair[0].number not in on_front,
            not isinstance(pair[0].outcome, Finished),
            math.isnan(_accuracy(pair[0])),
            -_accuracy(pair[0]),
        ),
    )


def _told(trial: TrialRecord) -> tuple[EpochScore, ...]:
    """Return the epochs of a trial that tell of their regions."""
    curve = () if isinstance(trial.outcome, Failed) else trial.outcome.curve
    return tuple(score for score in curve if score.regions and score.micro_batches)


def _accuracy(trial: TrialRecord) -> float:
    """Return the accuracy of a trial, the last one of a stopped trial; NaN where there is none."""
    match trial.outcome:
        case Finished(accuracy=accuracy) | Stopped(curve=(*_, EpochScore(accuracy=accuracy))):
            return accuracy
    return math.nan


def _affordable(cells: Sequence[int]) -> int:
    """Return how many trials fit on the page, the first in any case."""
    fitting = [count for count in range(len(cells) + 1) if sum(cells[:count]) <= MOST_CELLS]
    return max(1, min(MOST_TRIALS, fitting[-1]))


def _most(curves: Sequence[Sequence[EpochScore]]) -> float:
    """Return the largest share of micro-batches at which a region was updated, rounded up to 5 %."""
    scores = [score for curve in curves for score in curve]
    most = max(region.fires / score.micro_batches for score in scores for region in score.regions)
    return max(1, math.ceil(_SHARE_STEPS * most)) / _SHARE_STEPS


def _figure(most: float) -> Figure:
    """Return a plot without cells, whose colours reach from 0 to `most`."""
    figure = canvas(Axes(x=Axis(title="Epoch"), y=Axis(title=""), cost="epoch", merit="region"))
    cells = {"zmin": 0, "zmax": most, "ygap": 2, "hoverinfo": "text", "hoverongaps": False, "showscale": False}
    figure.add_trace(go.Heatmap(name="updates", colorscale=[[0, LIGHT["line"]], [1, LIGHT["front"]]], **cells))
    figure.update_xaxes(showgrid=False, ticks="", tickangle=0)
    return figure.update_yaxes(showgrid=False, ticks="", autorange="reversed")


def _label(trial: TrialRecord, on_front: set[int]) -> str:
    roles = [
        "reference" if trial.number == REFERENCE else "",
        "on the front" if trial.number in on_front else "",
        "stopped" if isinstance(trial.outcome, Stopped) else "",
    ]
    role = ", ".join(role for role in roles if role)
    words = accumulation_in_words(trial.plan.training.accumulation)
    accuracy = f"accuracy {measured('accuracy', _accuracy(trial))}"
    return f"Trial {trial.number}{f' ({role})' if role else ''}: {accuracy}{f'; {words}' if words else ''}"


def _words(trial: TrialRecord) -> TrialWords:
    rule = _rule(trial.plan.training.accumulation)
    return TrialWords(plan=f"Plan: {plan_in_words(trial.plan)}.", rule=rule, recovery=_recovery(trial))


def _rule(plan: AccumulationPlan) -> str:
    """Return when a region is updated under a plan; a window of one leaves a trigger nothing to decide."""
    if plan.window == 1:
        return "The window alone decides: all regions are updated at every micro-batch."
    window = f"the window of {plan.window} micro-batches"
    if plan.trigger == "never":
        return f"The window alone decides: all regions are updated together whenever {window} is full."
    reached = f"reaches {plan.trigger:.3g} or {window} is full"
    if plan.scope == "global":
        return f"All regions share one trigger: they are updated together as soon as their common agreement {reached}."
    return f"Each region has its own trigger: it is updated as soon as its agreement {reached}."


def _recovery(trial: TrialRecord) -> str:
    """Return that a technique's own training is not counted; nothing where there was none."""
    if not isinstance(trial.outcome, Finished):
        return ""
    names = [
        part.name
        for part in trial.plan.compression
        if dict(part.settings).get("recovery_epochs") and technique_in_words(part)
    ]
    return f"Recovery epochs after {' and '.join(names)} are not counted." if names else ""


def _facts(curve: Sequence[EpochScore]) -> tuple[str, ...]:
    """Return what was counted over all epochs, in the order of `_FACTS`."""
    regions = len(_names(curve))
    micro_batches = sum(score.micro_batches for score in curve)
    updated = [region for score in curve for region in score.regions if region.fires]
    fires = sum(region.fires for region in updated)
    agreement = sum(region.fires * region.agreement for region in updated)
    waited = sum(region.fires * region.waited for region in updated)
    return (
        str(regions),
        str(micro_batches),
        str(sum(score.skipped for score in curve)),
        str(sum(score.updates for score in curve)),
        f"{fires} of {micro_batches * regions}",
        f"{100 * (1 - fires / (micro_batches * regions)):.0f} %",
        significant(agreement / fires if fires else math.nan),
        significant(waited / fires if fires else math.nan),
    )


def _names(curve: Sequence[EpochScore]) -> tuple[str, ...]:
    """Return the names of all regions in the order of the network."""
    return tuple(dict.fromkeys(region.name for score in curve for region in score.regions))


def _columns(curve: Sequence[EpochScore]) -> dict[str, Plain]:
    """Return a trial as the script reads it: a row per region, a column per epoch, null where nothing is known."""
    names = _names(curve)
    found = [{region.name: region for region in score.regions} for score in curve]
    cells = [[regions.get(name) for regions in found] for name in names]
    return {
        "epochs": [score.epoch for score in curve],
        "epoch_tick": _epoch_tick(len(curve)),
        "micro_batches": [score.micro_batches for score in curve],
        "names": [plotly_text(_shortened(name, _NAME_LENGTH)) for name in names],
        "ticks": [plotly_text(_shortened(name, _TICK_LENGTH)) for name in names],
        "narrow_ticks": [plotly_text(_shortened(name, _NARROW_TICK_LENGTH)) for name in names],
        "fires": [[cell.fires if cell else None for cell in row] for row in cells],
        "agreement": [[_rounded(cell.agreement) if cell else None for cell in row] for row in cells],
        "waited": [[_rounded(cell.waited) if cell else None for cell in row] for row in cells],
        "facts": list(_facts(curve)),
    }


def _epoch_tick(epochs: int) -> int:
    """Return the least of 1, 2, 5, 10, 20, … that leaves a few ticks on the axis of epochs."""
    steps = (step * int(10.0**power) for power in range(len(str(epochs))) for step in _EPOCH_STEPS)
    return next(step for step in steps if epochs <= step * _MOST_EPOCH_TICKS)


def _shortened(name: str, length: int) -> str:
    """Return a name of at most so many characters: its ends tell more than its middle."""
    tail = (length - 1) * 2 // 3
    return name if len(name) <= length else f"{name[: length - 1 - tail]}…{name[-tail:]}"


def _rounded(value: float) -> Plain:
    return to_plain(float(f"{value:.3g}"))
