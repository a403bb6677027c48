"""Proposal: an Optuna trial as the `Suggest` that draws a plan; known values as an Optuna sampler."""

import random
from dataclasses import dataclass
from typing import Any, Protocol, final

from optuna import Study, Trial
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from beats_search.records.part import Scalar
from beats_search.search.domain import Domain, Params


@final
@dataclass(frozen=True, slots=True)
class Asked:
    """A `Suggest` that lets an Optuna trial choose, and so notes what was chosen."""

    trial: Trial

    def real(self, path: str, low: float, high: float, *, log: bool, step: float | None) -> float:
        """Return a number from `low` to `high`."""
        return self.trial.suggest_float(path, low, high, log=log, step=step)

    def integer(self, path: str, low: int, high: int, *, log: bool, step: int | None) -> int:
        """Return a whole number from `low` to `high`."""
        return self.trial.suggest_int(path, low, high, log=log, step=step or 1)

    def choice(self, path: str, labels: tuple[Scalar, ...]) -> int:
        """Return an index into `labels`."""
        return labels.index(self.trial.suggest_categorical(path, labels))


class SamplerPart(Protocol):
    """A part of `samplers`."""

    def make(self, seed: int, number: int, domain: Domain) -> BaseSampler | None:
        """Return the sampler of proposal `number` (0, 1, …) of a run with this seed, None when it has no more.

        It is made anew for each proposal and remembers nothing but what the study holds, so that a
        restart changes nothing.
        """


@final
class Given(BaseSampler):
    """A sampler whose one proposal is known beforehand; values of knobs that are not asked for stay unused."""

    def __init__(self, domain: Domain, params: Params) -> None:
        """Hold a value for every knob that the plan may ask for."""
        self._params = dict(params)
        self._distributions = {path: found for path, found in domain.distributions().items() if path in params}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the knobs that have a value."""
        del study, trial
        return self._distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the values."""
        del study, trial
        return {path: self._params[path] for path in search_space}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401 - Optuna's signature
        """Refuse: what has no value was not meant to be asked for."""
        del study
        raise LookupError(f"trial {trial.number} has no value for {param_name} in {param_distribution}")


def seed_of(seed: int, number: int) -> int:
    """Return the seed of proposal `number` of a run, 32 bits; a restart in between changes nothing."""
    return random.Random(f"{seed}/{number}").getrandbits(32)
