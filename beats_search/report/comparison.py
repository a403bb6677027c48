"""Comparison: several runs in, their fronts side by side on one scale out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from beats_search.pareto import front_of_run
from beats_search.records.objective import Objective
from beats_search.records.run import RunRecord
from beats_search.report.embedding import script_json
from beats_search.report.figures import comparison_figure
from beats_search.report.front import known_hypervolume


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRun:
    """One run among others: `hypervolume` is taken from the reference point that all share."""

    anchor: str
    name: str
    sampler: str
    trials: int
    finished: int
    front: int
    hypervolume: float
    accuracy: float | None
    latency_ms: float | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Runs side by side; `figure` is None where their objectives differ or none has finished a trial."""

    figure: Markup | None
    notes: tuple[str, ...]
    runs: tuple[ComparedRun, ...]


def compare(runs: Sequence[RunRecord], anchors: Sequence[str]) -> Comparison:
    """Return the comparison of runs. Hypervolumes share the worst corner of all the runs' reference points."""
    alike = len({frozenset(run.objectives) for run in runs}) == 1
    corner = _common_corner(runs) if alike else {}
    drawn = alike and any(front_of_run(run) for run in runs)
    return Comparison(
        figure=script_json(comparison_figure(runs).to_json()) if drawn else None,
        notes=_notes(runs, alike=alike),
        runs=tuple(_compared(run, anchor, corner) for run, anchor in zip(runs, anchors, strict=True)),
    )


def _common_corner(runs: Sequence[RunRecord]) -> Mapping[str, float]:
    return {objective.name: worst for objective in runs[0].objectives for worst in _worst(runs, objective)}


def _worst(runs: Sequence[RunRecord], objective: Objective) -> tuple[float, ...]:
    """Return the worst known corner of the runs along one objective; empty when no run knows one."""
    known = [run.reference_point[objective.name] for run in runs if objective.name in run.reference_point]
    finite = [value for value in known if value == value]  # noqa: PLR0124 - NaN is the one value that is not itself
    return (min(finite) if objective.maximize else max(finite),) if finite else ()


def _notes(runs: Sequence[RunRecord], *, alike: bool) -> tuple[str, ...]:
    if not alike:
        return ("The runs have different objectives, so their fronts and hypervolumes cannot be compared.",)
    environments = [run.environment for run in runs]
    keys = sorted({key for environment in environments for key in environment})
    differing = [key for key in keys if len({environment.get(key) for environment in environments}) > 1]
    if not differing:
        return ()
    return (f"The runs were measured in different environments ({', '.join(differing)}): latencies may not compare.",)


def _compared(run: RunRecord, anchor: str, corner: Mapping[str, float]) -> ComparedRun:
    front = [outcome for _, outcome in front_of_run(run)]
    return ComparedRun(
        anchor=anchor,
        name=run.name,
        sampler=run.sampler,
        trials=len(run.trials),
        finished=len(run.finished()),
        front=len(front),
        hypervolume=known_hypervolume(replace(run, reference_point=corner)),
        accuracy=max((outcome.accuracy for outcome in front), default=None),
        latency_ms=min((outcome.latency.median_ms for outcome in front), default=None),
        seconds=run.seconds,
    )
