"""TPE: finished trials in, a proposal near the good ones and far from the bad ones out."""

from dataclasses import dataclass

from optuna.samplers import BaseSampler, TPESampler

from beats_search.search.domain import Domain
from beats_search.search.proposal import seed_of
from beats_search.search.storage import without_experimental_warnings

__all__ = ["Tpe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tpe:
    """Models where good and bad plans lie and proposes between them (multivariate, multi-objective TPE).

    The first `startup` trials are random. Knobs that occur together are modelled together, so that
    conditional knobs are learned from the trials that have them (Watanabe 2023, arXiv:2304.11127).
    """

    startup: int = 10

    def __post_init__(self) -> None:
        """Refuse a model of nothing."""
        if self.startup < 1:
            raise ValueError(f"tpe.startup needs to be at least 1, got {self.startup}")

    def make(self, seed: int, number: int, domain: Domain) -> BaseSampler:
        """Return the sampler of one proposal."""
        del domain
        with without_experimental_warnings():
            return TPESampler(
                n_startup_trials=self.startup,
                multivariate=True,
                group=True,
                constant_liar=False,  # one trial runs at a time
                seed=seed_of(seed, number),
            )
