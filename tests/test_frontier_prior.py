"""What is believed of settings before any trial: of which, around which value, and how it fades."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from search_toy import budget, finished, foreseeing, new_ledger, problem

from beats_search.records.outcome import TrialOutcome
from beats_search.records.part import Scalar
from beats_search.records.plan import TrialPlan
from beats_search.search.frontier.asking import Asking
from beats_search.search.frontier.codes import Codes
from beats_search.search.frontier.history import read_history
from beats_search.search.frontier.oracle import OfFunction
from beats_search.search.frontier.prior import log_prior
from beats_search.search.improvement import Array
from beats_search.search.samplers.frontier import Frontier, FrontierSampler
from beats_search.search.study import search

FAR: Final = -(2.5**2) / 2
"""The logarithm of the belief in the farther end of a range."""

KNOBS: Final[Mapping[str, BaseDistribution]] = {
    "compression.0.threshold": FloatDistribution(1e-3, 1.0, log=True),
    "training.epochs": IntDistribution(1, 100, log=True),
    "training.lr": FloatDistribution(1e-4, 1.0, log=True),
    "training.momentum": FloatDistribution(0.0, 0.9),
    "training.optimizer": CategoricalDistribution(("sgd", "adam")),
}
CODES: Final = Codes(KNOBS)
DECISIVE: Final = np.array([name.startswith("compression") for name in CODES.names])
USUAL: Final[Mapping[str, Any]] = {
    "compression.0.threshold": 0.03,
    "training.epochs": 10,
    "training.lr": 0.01,
    "training.momentum": 0.45,
    "training.optimizer": "sgd",
}


def believed(changes: Sequence[Mapping[str, Any]], usual: Mapping[str, Any] = USUAL, codes: Codes = CODES) -> Array:
    """Return the logarithm of the belief in plans that differ from the usual one by these values."""
    rows = np.array([codes.row({**USUAL, **values}) for values in changes])
    return log_prior(codes, rows, codes.row(usual), DECISIVE)


def test_a_rate_is_believed_in_less_the_farther_it_is_from_the_usual_one() -> None:
    """Ten times as large is as likely as a tenth, and half the way counts a quarter."""
    found = believed([{"training.lr": lr} for lr in (0.01, 0.1, 0.001, 1.0, 1e-4)])
    assert found == pytest.approx([0.0, FAR / 4, FAR / 4, FAR, FAR])


def test_without_a_usual_value_the_middle_is_believed_in() -> None:
    """Where a study has no reference."""
    assert believed([{"training.lr": 0.01}, {"training.lr": 1.0}], {}) == pytest.approx([0.0, FAR])


@pytest.mark.parametrize("lr", [1e-4, 0.1, 1.0])
def test_the_farther_end_is_as_unlikely_wherever_the_usual_value_is(lr: float) -> None:
    """A usual value at one end of a range does not rule out the other."""
    found = believed([{"training.lr": lr}, {"training.lr": 1e-4}, {"training.lr": 1.0}], {"training.lr": lr})
    assert found[0] == pytest.approx(0.0)
    assert found.min() == pytest.approx(FAR)


def test_all_of_a_narrow_range_is_believed_in() -> None:
    """Who writes a factor of two knows where the setting is; its ends are as good."""
    codes = Codes({**KNOBS, "training.lr": FloatDistribution(0.01, 0.02, log=True)})
    assert believed([{"training.lr": 0.02}], {"training.lr": 0.01}, codes) > -0.2


def test_nothing_is_believed_of_other_knobs() -> None:
    """Of what decides latency, of whole numbers, of linear ranges and of choices all values are as likely."""
    ends: list[dict[str, Any]] = [
        {"compression.0.threshold": 1.0},
        {"training.epochs": 100},
        {"training.momentum": 0.9},
        {"training.optimizer": "adam"},
    ]
    assert believed(ends) == pytest.approx(np.zeros(len(ends)))


def test_a_plan_without_the_knob_is_not_doubted() -> None:
    """A rate that a plan does not use is neither right nor wrong."""
    row = CODES.row({name: value for name, value in USUAL.items() if name != "training.lr"})
    assert log_prior(CODES, row[None], CODES.row(USUAL), DECISIVE) == pytest.approx([0.0])


def left(told: int, belief: int) -> float:
    """Return the share of the belief that is left after so many trials, every second of which failed."""
    study = optuna.create_study(directions=["maximize", "minimize"])
    ends: list[dict[str, Any]] = [{"values": [0.5, 1.0]}, {"state": TrialState.FAIL}]
    for number in range(told):
        study.add_trial(create_trial(params=dict(USUAL), distributions=dict(KNOBS), **ends[number % 2]))
    oracle = OfFunction(("accuracy", "latency"), None, lambda name: name.startswith("compression"))
    history = read_history(study, CODES, oracle.names, told, ours=False)
    row = CODES.row({**USUAL, "training.lr": 1.0})[None]
    return float(Asking(CODES, oracle, history, np.array([1.0, -1.0]), belief).log_belief(row)[0]) / FAR


@pytest.mark.parametrize(("told", "belief", "share"), [(0, 20, 1), (20, 20, 1), (40, 20, 0.5), (4, 1, 0.25), (0, 0, 0)])
def test_a_belief_fades_as_trials_tell(told: int, belief: int, share: float) -> None:
    """It counts in full for as many trials as it is set to, failed ones too, and then as their share of all."""
    assert left(told, belief) == pytest.approx(share)


def studied(best: float | None, trials: int, seed: int = 0, belief: int = 20) -> list[float]:
    """Return the rates that a search tries where accuracy falls with the distance from the best, or nowhere."""

    def known(params: dict[str, Any]) -> tuple[float | None, ...]:
        return None, float(params["model.width"])

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        width = trial.suggest_int("model.width", 1, 8)
        lr = trial.suggest_float("training.lr", 1e-3, 1.0, log=True)
        off = 0.0 if best is None else abs(np.log10(lr / best))
        return 1 - 0.25 * off - 0.02 * (8 - width), width

    sampler = FrontierSampler(
        known,
        seed=seed,
        decides=lambda name: name.startswith("model"),
        reference_point=(0.0, 9.0),
        settings=Frontier(start_queries=8, queries=2, pool=80, belief=belief),
    )
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(objective, n_trials=trials)
    return [trial.params["training.lr"] for trial in study.trials]


@pytest.mark.parametrize("best", [1e-3, 1.0])
def test_a_wrong_belief_is_given_up(best: float) -> None:
    """A rate that is best at an end of its range is found there within a search."""
    rates = np.array(studied(best, 40))
    assert np.abs(np.log10(rates / best)).min() < 0.15


def test_a_search_keeps_to_what_is_believed_until_it_knows() -> None:
    """The first trials are nearer to the middle of the range than without a belief, and than random ones."""

    def apart(belief: int) -> float:
        rates = np.array([studied(None, 12, seed, belief)[1:] for seed in range(4)])
        return float(np.abs(np.log10(rates / 10**-1.5)).mean())

    assert apart(20) < 0.55 < apart(0)


def test_the_reference_tells_where(tmp_path: Path) -> None:
    """A run's first trials keep to the rate of its reference, though that is near an end of the range."""
    rates: list[float] = []

    def run_trial(number: int, plan: TrialPlan, _: object) -> TrialOutcome:
        if number:
            rates.append(plan.training.lr)
        return finished(0.5, 4.0)

    usual: Mapping[str, Scalar] = {"model.width": 32, "training.lr": 0.003, "training.schedule": "constant"}
    toy = replace(problem(run_trial), domain=foreseeing(usual))
    for seed in range(4):
        with new_ledger(tmp_path / f"{seed}.db", seed) as ledger:
            search(toy, ledger, budget(10, "frontier", start_queries=6, queries=3, pool=60))
    assert float(np.abs(np.log10(np.array(rates) / 0.003)).mean()) < 0.5
