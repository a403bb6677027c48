"""GP: finished trials in, the proposal with the most expected gain in hypervolume out."""

from dataclasses import dataclass
from typing import Any, final

import optuna
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from beats_search.search.domain import Domain, Params, value_at
from beats_search.search.proposal import seed_of

__all__ = ["Gp"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gp:
    """Models each objective by a Gaussian process and proposes the most expected gain in hypervolume.

    The first `startup` trials are random. A proposal takes around a second. A conditional knob that
    a trial leaves unused counts as its middle value, so that it tells the model nothing. (Optuna's
    GPSampler by itself draws conditional knobs at random.)
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
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(complete) < self._startup:
            return {}
        copy = optuna.create_study(directions=study.directions, sampler=self._model)
        copy.add_trials([self._filled(trial) for trial in complete])
        return copy.ask(search_space).params

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401 - Optuna's signature
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _filled(self, trial: FrozenTrial) -> FrozenTrial:
        return create_trial(
            params={path: trial.params.get(path, self._middle[path]) for path in self._distributions},
            distributions=self._distributions,
            values=trial.values,
            constraints=trial.constraints,
        )
