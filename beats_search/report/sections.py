"""Sections: a run in, what the page says about it out, in words and figures ready to be set."""

import math
from collections import Counter
from dataclasses import dataclass

from markupsafe import Markup

from beats_search.pareto import front_of_run
from beats_search.records.outcome import Failed, Finished, Stopped
from beats_search.records.plain import to_plain
from beats_search.records.run import RunRecord, TrialRecord
from beats_search.report.answer import answer
from beats_search.report.budget import Budget, budget_members, budgets
from beats_search.report.embedding import script_json, to_script_json
from beats_search.report.figures import covered, hypervolume_figure, pareto_figure, plotted, unseen
from beats_search.report.front import known_hypervolume, reference_of
from beats_search.report.links import Links
from beats_search.report.measures import MEASURES, duration, plural, significant
from beats_search.report.precision import Rivalry, rivalries, surprises
from beats_search.report.regions import RegionSection, region_section
from beats_search.report.savings import savings_in_words
from beats_search.report.sparkline import sparkline
from beats_search.report.tables import FrontRow, front_rows, state_of
from beats_search.report.timing import remarks, retiming_in_words
from beats_search.report.words import plan_in_words


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontEntry:
    """A member of the front, with links to its files where there are any."""

    row: FrontRow
    model: str | None
    card: str | None
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialEntry:
    """A trial as a row: `finished` holds its values if it has any, `curve` the points of a sparkline."""

    number: int
    state: str
    plan: str
    why: str
    detail: str
    finished: Finished | None
    curve: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSection:
    """All that the page says about one run; figures are JSON, None where there is nothing to draw."""

    anchor: str
    name: str
    answer: str
    facts: tuple[tuple[str, str], ...]
    pareto: Markup | None
    pareto_title: str
    pareto_notes: tuple[str, ...]
    rivalries: tuple[Rivalry, ...]
    verdict: str
    surprises: tuple[str, ...]
    front: tuple[FrontEntry, ...]
    retiming: str
    confirmed: bool
    budgets: tuple[Budget, ...]
    budget_members: Markup
    growth: Markup | None
    savings: tuple[str, ...]
    regions: RegionSection | None
    trials: tuple[TrialEntry, ...]
    definitions: tuple[tuple[str, str], ...]
    environment: tuple[tuple[str, str], ...]


def run_section(run: RunRecord, links: Links, anchor: str) -> RunSection:
    """Return the section of one run; `anchor` starts the ids of its elements on the page."""
    found = answer(run)
    rivals = rivalries(run)
    drawn = bool(run.finished())
    grown = drawn and math.isfinite(known_hypervolume(run))
    return RunSection(
        anchor=anchor,
        name=run.name,
        answer=found.text,
        facts=_facts(run),
        pareto=script_json(pareto_figure(run, found.trial).to_json()) if drawn else None,
        pareto_title=_pareto_title(run),
        pareto_notes=_pareto_notes(run) if drawn else (),
        rivalries=rivals,
        verdict=_verdict(rivals),
        surprises=surprises(run),
        front=tuple(_front_entry(run, row, links) for row in front_rows(run)),
        retiming=retiming_in_words(run),
        confirmed=any(trial.number in run.confirmed for trial, _ in front_of_run(run)),
        budgets=budgets(run, found.trial),
        budget_members=to_script_json(to_plain(budget_members(run, links))),
        growth=script_json(hypervolume_figure(run).to_json()) if grown else None,
        savings=savings_in_words(run),
        regions=region_section(run, found.trial),
        trials=tuple(_trial_entry(trial) for trial in run.trials),
        definitions=_definitions(run),
        environment=tuple(run.environment.items()),
    )


def _facts(run: RunRecord) -> tuple[tuple[str, str], ...]:
    states = Counter(state_of(trial.outcome) for trial in run.trials)
    counts = [(state.capitalize(), str(states[state])) for state in ("finished", "stopped", "failed")]
    return (
        ("Trials", str(len(run.trials))),
        *counts,
        ("Duplicates", str(run.duplicates)),
        ("Search time", duration(run.seconds)),
        ("Sampler", run.sampler),
        ("Seed", str(run.seed)),
        ("Hypervolume", significant(known_hypervolume(run))),
    )


def _pareto_title(run: RunRecord) -> str:
    cost, merit = (MEASURES[objective.name].word for objective in plotted(run))
    return f"{merit.capitalize()} against {cost}"


def _pareto_notes(run: RunRecord) -> tuple[str, ...]:
    axes = {objective.name for objective in plotted(run)}
    third = [MEASURES[objective.name].word for objective in run.objectives if objective.name not in axes]
    below, left_out = unseen(run), covered(run)
    notes = (
        f"Colour shows {third[0]}. With three objectives the front is a surface, so no line is drawn." if third else "",
        f"Out of sight, far below the front: {plural(below, 'trial')}. Double-click the plot to see all."
        if below
        else "",
        f"Not drawn: {plural(left_out, 'dominated trial')} where others are drawn already." if left_out else "",
        "The reference has not finished, so it is not drawn." if reference_of(run) is None else "",
    )
    return tuple(note for note in notes if note)


def _verdict(rivals: tuple[Rivalry, ...]) -> str:
    if not rivals:
        return "No structure finished both in fp32 and in a lower precision, so there is nothing to compare."
    lost = sum(rival.gain <= 1 for rival in rivals)
    unclear = sum(rival.gain > 1 and not rival.clear for rival in rivals)
    measured = f"{plural(len(rivals), 'structure')} finished both in fp32 and in a lower precision"
    if not lost + unclear:
        return f"{measured}. Lower precision is faster in every one."
    doubt = f", in {unclear} the intervals overlap" if unclear else ""
    return f"{measured}. In {lost} of them lower precision is not faster than fp32 on this machine{doubt}."


def _front_entry(run: RunRecord, row: FrontRow, links: Links) -> FrontEntry:
    return FrontEntry(
        row=row, model=links.model(row.trial), card=links.card(row.trial), command=links.export(run, row.trial)
    )


def _trial_entry(trial: TrialRecord) -> TrialEntry:
    outcome = trial.outcome
    finished = outcome if isinstance(outcome, Finished) else None
    return TrialEntry(
        number=trial.number,
        state=state_of(outcome),
        plan=plan_in_words(trial.plan),
        why=_why(trial),
        detail=outcome.detail if isinstance(outcome, Failed) else "",
        finished=finished,
        curve="" if isinstance(outcome, Failed) else sparkline(outcome.curve),
        seconds=trial.seconds,
    )


def _why(trial: TrialRecord) -> str:
    match trial.outcome:
        case Failed(stage=stage, reason=reason):
            return f"in {stage}: {reason}"
        case Stopped(epoch=0, reason=reason):
            return f"not trained: {reason}"
        case Stopped(reason=reason):
            return reason
        case Finished(latency=latency):
            return ", ".join(remarks(latency))


def _definitions(run: RunRecord) -> tuple[tuple[str, str], ...]:
    objectives = ", ".join(f"{objective.name} ({objective.direction})" for objective in run.objectives)
    corner = ", ".join(f"{name} {significant(value)}" for name, value in run.reference_point.items())
    reference = reference_of(run)
    timed = f"{reference[1].latency.blocks} blocks, {reference[1].latency.calls} calls" if reference else "not finished"
    return (
        ("Objectives", objectives),
        ("Constraints", " and ".join(str(limit) for limit in run.constraints) or "none"),
        ("Reference point of the hypervolume", corner or "not known"),
        ("Timing of the reference", timed),
        ("Input", f"{' × '.join(str(size) for size in run.input_shape)}, {len(run.classes)} classes"),
    )
