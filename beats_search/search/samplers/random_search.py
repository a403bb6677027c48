"""Random search: every proposal is drawn at random, whatever came before."""

from dataclasses import dataclass

from optuna.samplers import BaseSampler, RandomSampler

from beats_search.search.domain import Domain
from beats_search.search.proposal import seed_of

__all__ = ["RandomSearch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomSearch:
    """Draws every knob at random; the yardstick for all others."""

    def make(self, seed: int, number: int, domain: Domain) -> BaseSampler:
        """Return the sampler of one proposal."""
        del domain
        return RandomSampler(seed=seed_of(seed, number))
