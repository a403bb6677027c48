"""Rows: a study in a database in, its trials as plain rows out, with what they carry and nothing else.

For whoever only reads a run. Optuna's own reading makes an object of every value and reads the
distribution of each one twice, which takes some ten times as long for ten thousand trials.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from optuna import Study
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import RDBStorage
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from beats_search.records.part import Scalar

_CARRIED: Final = text(
    "SELECT a.trial_id, a.key, a.value_json FROM trial_user_attributes a"
    " JOIN trials t ON t.trial_id = a.trial_id WHERE t.study_id = :study"
)
_VALUES: Final = text(
    "SELECT p.trial_id, p.param_name, p.param_value, p.distribution_json FROM trial_params p"
    " JOIN trials t ON t.trial_id = p.trial_id WHERE t.study_id = :study ORDER BY p.param_id"
)
_NUMBERS: Final = text("SELECT trial_id, number FROM trials WHERE study_id = :study ORDER BY trial_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """A trial's number, the values of its knobs, and what it carries."""

    number: int
    params: Mapping[str, Scalar] = field(default_factory=dict)
    user_attrs: Mapping[str, Any] = field(default_factory=dict)


def trial_rows(study: Study, storage: RDBStorage) -> Sequence[TrialRow]:
    """Return the trials of a study, in the order of their numbers; by Optuna itself where its tables are others."""
    try:
        return _rows(study, storage)
    except SQLAlchemyError:
        trials = study.get_trials(deepcopy=False)
        return [TrialRow(number=trial.number, params=trial.params, user_attrs=trial.user_attrs) for trial in trials]


def _rows(study: Study, storage: RDBStorage) -> Sequence[TrialRow]:
    """Return the trials as their tables have them; TypeError where a number is none.

    Another process may write meanwhile: what trials carry is read before their values, and these before the trials,
    so that whatever carries an outcome is there with all its values.
    """
    carried: defaultdict[int, dict[str, Any]] = defaultdict(dict)
    values: defaultdict[int, dict[str, Scalar]] = defaultdict(dict)
    which = {"study": study._study_id}  # noqa: SLF001 - Optuna tells it nowhere else
    with storage.engine.connect() as connection:
        for trial, key, written in connection.execute(_CARRIED, which):
            carried[trial][key] = json.loads(written)
        for trial, name, value, distribution in connection.execute(_VALUES, which):
            values[trial][name] = _distribution(distribution).to_external_repr(value)
        numbers = connection.execute(_NUMBERS, which).all()
    if any(not isinstance(number, int) for _, number in numbers):
        raise TypeError("the number of a trial is no integer")  # SQLite keeps whatever it is given
    return [TrialRow(number=number, params=values[trial], user_attrs=carried[trial]) for trial, number in numbers]


@cache
def _distribution(written: str) -> BaseDistribution:
    return json_to_distribution(written)
