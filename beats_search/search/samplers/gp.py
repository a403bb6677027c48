"""GP: finished trials in, the proposal with the most expected gain in hypervolume out."""

from dataclasses import dataclass
from typing import Any, final

import optuna
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from beats_search.search.domain import Domain, Params, value_at
from beats_search.search.proposal import seed_of

__all__ = ["Gp"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gp:
    """Models each objective by a Gaussian process and proposes the most expected gain in hypervolume.

    The first `startup` trials are random. A proposal takes around a second. Stopped and failed trials
    count as the worst seen in everything, so that the model learns to avoid them. A conditional knob
    that a trial leaves unused counts as its middle value, so that it tells the model nothing.
    (Optuna's GPSampler by itself forgets such trials, proposes their plans for ever, and draws
    conditional knobs at random.)
    """

    startup: int = 10

    def __post_init__(self) -> None:
        """Refuse a model of nothing."""
        if self.startup < 1:
            raise ValueError(f"gp.startup needs to be at least 1, got {self.startup}")

    def make(self, seed: int, number: int, domain: Domain) -> BaseSampler:
        """Return the sampler of one proposal."""
        return _Filled(domain, self.startup, seed_of(seed, number))


@final
class _Filled(BaseSampler):
    """A GPSampler on a copy of the study in which every trial has every knob."""

    def __init__(self, domain: Domain, startup: int, seed: int) -> None:
        self._distributions = domain.distributions()
        self._middle: Params = {path: value_at(domain[path], 0.5) for path in self._distributions}
        self._startup = startup
        self._model = GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
        self._random = RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        del study, trial
        return self._distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        del trial
        told = [trial for trial in study.get_trials(deepcopy=False) if trial.params and trial.state.is_finished()]
        complete = [trial for trial in told if trial.state is TrialState.COMPLETE]
        if len(complete) < self._startup:
            return {}
        bad = [trial for trial in told if trial.state is not TrialState.COMPLETE and "outcome" in trial.user_attrs]
        copy = optuna.create_study(directions=study.directions, sampler=self._model)
        copy.add_trials([self._filled(trial, trial.values, trial.constraints) for trial in complete])
        values, constraints = _worst(complete, study.directions)
        copy.add_trials([self._filled(trial, values, constraints) for trial in bad])
        return copy.ask(search_space).params

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401 - Optuna's signature
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _filled(self, trial: FrozenTrial, values: list[float], constraints: dict[str, float]) -> FrozenTrial:
        return create_trial(
            params={path: trial.params.get(path, self._middle[path]) for path in self._distributions},
            distributions=self._distributions,
            values=values,
            constraints=constraints,
        )


def _worst(complete: list[FrozenTrial], directions: list[StudyDirection]) -> tuple[list[float], dict[str, float]]:
    """Return the worst value of each objective and the greatest violation of each limit."""
    columns = zip(directions, zip(*(trial.values for trial in complete), strict=True), strict=True)
    values = [min(column) if direction is StudyDirection.MAXIMIZE else max(column) for direction, column in columns]
    names = complete[0].constraints
    return values, {name: max(trial.constraints[name] for trial in complete) for name in names}
