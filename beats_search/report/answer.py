"""Answer: a run in, its result as one honest sentence out."""

from collections import Counter
from dataclasses import dataclass
from typing import Final

from beats_search.pareto import front_of_run
from beats_search.records.outcome import Finished
from beats_search.records.run import RunRecord, TrialRecord
from beats_search.report.front import reference_of
from beats_search.report.measures import MEASURES, measured, significant, times
from beats_search.report.tables import state_of

AFFORDABLE_LOSS: Final = 0.01
"""The loss of accuracy that the headline allows: one point."""

_ROUNDING = 1e-9
_Pair = tuple[TrialRecord, Finished]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The result in a sentence, and the trial that it speaks of, if any."""

    text: str
    trial: int | None = None


def answer(run: RunRecord) -> Answer:
    """Return what a run found: its best cheap model against the reference, or plainly why there is none."""
    front = front_of_run(run)
    if not run.trials:
        return Answer(text="No trial has run yet.")
    if not run.finished():
        return Answer(text=f"No trial has finished: {_tally(run)}.")
    if not front:
        return _nearest(run)
    reference = reference_of(run)
    return _against(run, reference, front) if reference else _without_reference(front)


def cost_of(run: RunRecord) -> str:
    """Return the name of the objective that is traded against accuracy: the first other one."""
    return next((objective.name for objective in run.objectives if objective.name != "accuracy"), "latency_ms")


def _tally(run: RunRecord) -> str:
    states = Counter(state_of(trial.outcome) for trial in run.trials)
    return ", ".join(f"{count} {state}" for state, count in sorted(states.items()))


def _nearest(run: RunRecord) -> Answer:
    limits = " and ".join(str(limit) for limit in run.constraints)
    trial, outcome = min(run.finished(), key=lambda pair: _excess(run, pair[1]))
    broken = [limit.name for limit in run.constraints if not limit.holds(outcome)]
    values = ", ".join(f"{MEASURES[name].word} {measured(name, outcome.value(name))}" for name in broken)
    text = f"No finished trial keeps the limits ({limits}). The nearest is trial {trial.number} with {values}."
    return Answer(text=text, trial=trial.number)


def _excess(run: RunRecord, outcome: Finished) -> float:
    """Return the sum of the broken limits, each relative to its bound, so that units do not matter."""
    return sum(max(0.0, limit.violation(outcome)) / max(abs(limit.bound), _ROUNDING) for limit in run.constraints)


def _without_reference(front: tuple[_Pair, ...]) -> Answer:
    trial, outcome = max(front, key=lambda pair: pair[1].accuracy)
    text = f"The reference did not finish, so there is nothing to compare with. {_most_accurate(trial, outcome)}."
    return Answer(text=text, trial=trial.number)


def _most_accurate(trial: TrialRecord, outcome: Finished) -> str:
    values = [measured(name, outcome.value(name)) for name in ("accuracy", "latency_ms", "size_kb")]
    return f"The most accurate model is trial {trial.number}: {', '.join(values)}"


def _against(run: RunRecord, reference: _Pair, front: tuple[_Pair, ...]) -> Answer:
    cost = cost_of(run)
    cheaper = [pair for pair in front if pair[1].value(cost) < reference[1].value(cost)]
    bar = reference[1].accuracy - AFFORDABLE_LOSS - _ROUNDING
    affordable = [pair for pair in cheaper if pair[1].accuracy >= bar]
    if affordable:
        return _won(cost, reference, min(affordable, key=lambda pair: pair[1].value(cost)))
    if cheaper:
        return _too_costly(cost, reference, max(cheaper, key=lambda pair: pair[1].accuracy))
    return _nothing_cheaper(cost, max(front, key=lambda pair: pair[1].accuracy))


def _won(cost: str, reference: _Pair, best: _Pair) -> Answer:
    words = MEASURES[cost]
    trial, outcome = best
    text = (
        f"The {words.best} model that loses no more than 1 point of accuracy is trial {trial.number}: "
        f"{_gain(cost, reference[1], outcome)} than the reference, "
        f"{measured('accuracy', outcome.accuracy)} against {measured('accuracy', reference[1].accuracy)}, "
        f"{measured('size_kb', outcome.footprint.size_kb)}."
    )
    return Answer(text=f"{text}{_doubt(cost, reference[1], outcome)}", trial=trial.number)


def _too_costly(cost: str, reference: _Pair, best: _Pair) -> Answer:
    words = MEASURES[cost]
    trial, outcome = best
    loss = 100 * (reference[1].accuracy - outcome.accuracy)
    text = (
        f"No {words.better} model stays within 1 point of the reference's accuracy. "
        f"The most accurate of the {words.better} ones is trial {trial.number}: "
        f"{_gain(cost, reference[1], outcome)}, and {significant(loss, 2)} points less accurate "
        f"({measured('accuracy', outcome.accuracy)} against {measured('accuracy', reference[1].accuracy)})."
    )
    return Answer(text=f"{text}{_doubt(cost, reference[1], outcome)}", trial=trial.number)


def _nothing_cheaper(cost: str, best: _Pair) -> Answer:
    trial, outcome = best
    text = f"No model on the front is {MEASURES[cost].better} than the reference. {_most_accurate(trial, outcome)}."
    return Answer(text=text, trial=trial.number)


def _gain(cost: str, reference: Finished, outcome: Finished) -> str:
    return f"{times(reference.value(cost) / outcome.value(cost))} {MEASURES[cost].better}"


def _doubt(cost: str, reference: Finished, outcome: Finished) -> str:
    overlap = outcome.interval(cost).high >= reference.interval(cost).low
    return f" The two 95 % intervals of {MEASURES[cost].word} overlap, so this may be noise." if overlap else ""
