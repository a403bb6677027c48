"""History: the trials of a study in, what each taught about its plan out; and the notes that a proposal leaves.

A proposal writes what it asked and chose into its trial's system attributes, so that what was measured
once stays known, to any process that opens the study.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from optuna import Study
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from beats_search.records.outcome import Finished, outcome_from_plain
from beats_search.search.frontier.codes import Codes
from beats_search.search.frontier.oracle import Answer
from beats_search.search.improvement import Array

_KEY: Final = "frontier:"
_LENGTH: Final = 1500
"""Optuna's databases hold system attributes of 2,046 characters, quotes escaped."""


class Ended(Enum):
    """What a trial taught."""

    FINISHED = 0
    STOPPED = 1
    FAILED = 2
    RUNNING = 3
    SPARED = 4  # not trained, so that it taught nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What one proposal asked, by row, and the row that it chose."""

    asked: Mapping[bytes, Answer | None]
    chosen: bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class History:
    """Trials as rows (n, k) with what they taught: `gains` (n, d) are values to be maximized, NaN unless finished.

    `expected` (n, d) are the gains that stopped trials were expected to reach, NaN for others and where
    nothing was expected. `violations` (n, c) are those of the constraints `limits`. `bare` (m, d) are
    points without a plan of the space, such as a reference that it could not draw. `asked` holds the
    answers for rows, None for no such plan. `taken` are all rows that were proposed.
    """

    rows: Array
    ended: tuple[Ended, ...]
    gains: Array
    expected: Array
    limits: tuple[str, ...]
    violations: Array
    bare: Array
    asked: Mapping[bytes, Answer | None]
    taken: frozenset[bytes]

    def where(self, *kinds: Ended) -> NDArray[np.bool_]:
        """Return which trials ended in one of these ways (n,)."""
        return np.array([ended in kinds for ended in self.ended], dtype=bool)

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Return which trials finished within all limits (n,)."""
        return self.where(Ended.FINISHED) & ~(self.violations > 0).any(axis=1)

    @property
    def points(self) -> Array:
        """Return the points (m, d) that keep all limits: finished trials and bare ones."""
        return np.vstack([self.gains[self.kept], self.bare])


def signs_of(study: Study) -> Array:
    """Return 1 for each objective to be maximized and −1 for each to be minimized."""
    return np.array([1.0 if direction is StudyDirection.MAXIMIZE else -1.0 for direction in study.directions])


def read_history(
    study: Study,
    codes: Codes,
    names: Sequence[str],
    current: int,
    *,
    ours: bool,
    reference: Array | None = None,
) -> History:
    """Return what the trials of a study before or beside trial `current` taught.

    `ours`: a failed trial counts only with an outcome, for others were cut off or never ran. `reference`
    is the row (k,) of the plan that does what the reference does, which then is a trial like others.
    """
    signs = signs_of(study)
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.number != current]
    notes = [read_note(trial, codes) for trial in trials]
    asked: dict[bytes, Answer | None] = {}
    told: list[tuple[FrozenTrial, Array, Ended]] = []
    for trial, note in zip(trials, notes, strict=True):
        if note is not None and (not ours or _became_a_plan(trial)):
            asked.update(note.asked)
        ended = _ended(trial, ours=ours)
        if ended is not None and (trial.params or note is not None):
            chosen = np.frombuffer(note.chosen) if note is not None and not trial.params else codes.row(trial.params)
            told.append((trial, chosen, ended))
            if "known" in trial.user_attrs:
                asked.setdefault(chosen.tobytes(), Answer(values=trial.user_attrs["known"]))
    finished = [trial for trial, _, ended in told if ended is Ended.FINISHED]
    limits = tuple(sorted({limit for trial in finished for limit in trial.constraints}))
    history = History(
        rows=np.array([row for _, row, _ in told]).reshape(len(told), len(codes.names)),
        ended=tuple(ended for _, _, ended in told),
        gains=np.array([_gains(trial, signs) for trial, _, _ in told]).reshape(len(told), len(signs)),
        expected=np.array([_expected(trial, names, signs) for trial, _, _ in told]).reshape(len(told), len(signs)),
        limits=limits,
        violations=np.array([_violations(trial, limits) for trial, _, _ in told]).reshape(len(told), len(limits)),
        bare=np.array(list(_bare(trials, names, signs))).reshape(-1, len(signs)),
        asked=asked,
        taken=frozenset(row.tobytes() for _, row, _ in told),
    )
    return history if reference is None or len(history.bare) != 1 else _with_reference(history, reference)


def _with_reference(history: History, row: Array) -> History:
    """Return a history in which the one bare point is the first trial, of this row (k,)."""
    return replace(
        history,
        rows=np.vstack([row, history.rows]),
        ended=(Ended.FINISHED, *history.ended),
        gains=np.vstack([history.bare, history.gains]),
        expected=np.vstack([np.full(len(history.expected.T), np.nan), history.expected]),
        violations=np.vstack([np.full(len(history.limits), np.nan), history.violations]),
        bare=np.empty((0, history.bare.shape[1])),
        taken=history.taken | {row.tobytes()},
    )


def write_note(study: Study, trial: FrozenTrial, codes: Codes, note: Note) -> None:
    """Keep what a proposal asked and chose with its trial."""
    names = sorted({name for answer in note.asked.values() if answer is not None for name in answer.values})
    text = json.dumps(
        {
            "knobs": codes.fingerprint,
            "known": names,
            "asked": [_line(row, answer, names) for row, answer in note.asked.items()],
            "chosen": _numbers(note.chosen),
        },
        separators=(",", ":"),
    )
    for part, start in enumerate(range(0, len(text), _LENGTH)):
        study._storage.set_trial_system_attr(  # noqa: SLF001 - as Optuna's own samplers do
            trial._trial_id,  # noqa: SLF001 - the same
            f"{_KEY}{part}",
            text[start : start + _LENGTH],
        )


def read_note(trial: FrozenTrial, codes: Codes) -> Note | None:
    """Return what the proposal of a trial noted, None without notes or with those about other knobs."""
    parts: list[str] = []
    while (part := trial.system_attrs.get(f"{_KEY}{len(parts)}")) is not None:
        parts.append(part)
    if not parts:
        return None
    try:
        note = json.loads("".join(parts))
    except json.JSONDecodeError:  # written by another process at this moment
        return None
    if note["knobs"] != codes.fingerprint:
        return None
    return Note(asked=dict(_answer(line, note["known"]) for line in note["asked"]), chosen=_bytes(note["chosen"]))


def _line(row: bytes, answer: Answer | None, names: Sequence[str]) -> list[Any]:
    if answer is None:
        return [_numbers(row)]
    return [_numbers(row), int(answer.allowed), [answer.values.get(name) for name in names]]


def _answer(line: list[Any], names: Sequence[str]) -> tuple[bytes, Answer | None]:
    if len(line) == 1:
        return _bytes(line[0]), None
    row, allowed, values = line
    known = {name: value for name, value in zip(names, values, strict=True) if value is not None}
    return _bytes(row), Answer(values=known, allowed=bool(allowed))


def _numbers(row: bytes) -> list[float | None]:
    return [
        None if np.isnan(code) else int(code) if code.is_integer() else code for code in np.frombuffer(row).tolist()
    ]


def _bytes(numbers: list[float | None]) -> bytes:
    return np.array([np.nan if number is None else number for number in numbers], dtype=float).tobytes()


def _became_a_plan(trial: FrozenTrial) -> bool:
    return trial.state is not TrialState.FAIL or bool(trial.user_attrs.keys() & {"plan", "duplicate_of"})


def _ended(trial: FrozenTrial, *, ours: bool) -> Ended | None:
    match trial.state:
        case TrialState.COMPLETE:
            return Ended.FINISHED
        case TrialState.PRUNED:
            return Ended.STOPPED if trial.user_attrs.get("outcome", {}).get("epoch", 1) else Ended.SPARED
        case TrialState.RUNNING:
            return Ended.RUNNING
        case TrialState.FAIL:
            return Ended.FAILED if "outcome" in trial.user_attrs or not ours else None
    return None


def _gains(trial: FrozenTrial, signs: Array) -> Array:
    return signs * trial.values if trial.state is TrialState.COMPLETE else np.full(len(signs), np.nan)


def _expected(trial: FrozenTrial, names: Sequence[str], signs: Array) -> Array:
    outcome = trial.user_attrs.get("outcome", {})
    told = {"accuracy": outcome.get("expected")} if trial.state is TrialState.PRUNED else {}
    return np.asarray(signs * np.array([told.get(name) for name in names], dtype=float))


def _violations(trial: FrozenTrial, limits: Sequence[str]) -> list[float]:
    finished = trial.state is TrialState.COMPLETE
    return [trial.constraints.get(limit, np.nan) if finished else np.nan for limit in limits]


def _bare(trials: Sequence[FrozenTrial], names: Sequence[str], signs: Array) -> Iterable[Array]:
    """Yield the points of trials that finished but were told as failed: the reference, which has no knobs."""
    for trial in trials:
        carried = trial.user_attrs.get("outcome")
        if trial.state is TrialState.FAIL and isinstance(carried, Mapping) and carried.get("is") == Finished.__name__:
            outcome = outcome_from_plain(carried)
            if isinstance(outcome, Finished):
                yield signs * [outcome.value(name) for name in names]
