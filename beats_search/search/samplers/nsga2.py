"""NSGA-II: a generation of finished trials in, a child of two of its better ones out."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, NSGAIISampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from beats_search.search.domain import Domain
from beats_search.search.proposal import seed_of
from beats_search.search.storage import without_experimental_warnings

__all__ = ["Nsga2"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Nsga2:
    """Crosses the better plans of a generation and mutates their children (NSGA-II, Deb et al. 2002).

    The first generation of `population` finished trials is random. Conditional knobs are inherited
    like all others, from a parent that has them. (Optuna's own crossover draws them at random.)
    """

    population: int = 20

    def __post_init__(self) -> None:
        """Refuse a generation that cannot have children."""
        if self.population < 2:  # noqa: PLR2004 - a child has two parents
            raise ValueError(f"nsga2.population needs to be at least 2, got {self.population}")

    def make(self, seed: int, number: int, domain: Domain) -> BaseSampler:
        """Return the sampler of one proposal."""
        return _Conditional(domain, self.population, seed_of(seed, number))


@final
class _Conditional(BaseSampler):
    """Optuna's NSGA-II with generations and survivors as they are, and a crossover over all knobs."""

    def __init__(self, domain: Domain, population: int, seed: int) -> None:
        self._distributions = domain.distributions()
        with without_experimental_warnings():
            self._generations = NSGAIISampler(
                population_size=population, seed=seed, child_generation_strategy=_Crossover(random.Random(seed))
            )

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        del study, trial
        return self._distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._generations.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401 - Optuna's signature
        return self._generations.sample_independent(study, trial, param_name, param_distribution)


@final
@dataclass(frozen=True, slots=True)
class _Crossover:
    """Two tournament winners in, the genes of their child out; a gene left out is drawn anew."""

    rng: random.Random

    def __call__(
        self, study: Study, search_space: dict[str, BaseDistribution], parents: list[FrozenTrial]
    ) -> dict[str, Any]:
        first, second = (self._tournament(parents, study.directions) for _ in range(2))
        genes = {}
        for path in search_space:
            one, other = self.rng.sample((first, second), 2)
            holder = one if path in one.params else other
            mutated = self.rng.random() < 1 / len(search_space)
            if path in holder.params and not mutated:
                genes[path] = holder.params[path]
        return genes

    def _tournament(self, parents: list[FrozenTrial], directions: Sequence[StudyDirection]) -> FrozenTrial:
        one, other = self.rng.choice(parents), self.rng.choice(parents)
        return other if _better(other, one, directions) else one


def _better(one: FrozenTrial, other: FrozenTrial, directions: Sequence[StudyDirection]) -> bool:
    """Tell whether `one` breaks its limits less, or dominates where both break them equally (Deb et al. 2002, §VI)."""
    if _violation(one) != _violation(other):
        return _violation(one) < _violation(other)
    signs = [1.0 if direction is StudyDirection.MAXIMIZE else -1.0 for direction in directions]
    gains: list[float] = [sign * (a - b) for sign, a, b in zip(signs, one.values, other.values, strict=True)]
    return min(gains) >= 0 and max(gains) > 0


def _violation(trial: FrozenTrial) -> float:
    return sum(max(0.0, amount) for amount in trial.constraints.values())
