"""Sobol: the number of a proposal in, a point of a sequence that fills the space evenly out."""

from dataclasses import dataclass

from optuna.samplers import BaseSampler

from beats_search.search.domain import Domain, value_at
from beats_search.search.proposal import Given, seed_of

__all__ = ["Sobol"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sobol:
    """Fills the space evenly, whatever came before (scrambled Sobol sequence).

    Every knob has a dimension of its own, also a conditional one that a plan leaves unused. (Optuna's
    QMCSampler knows the knobs of the first trial only and draws all others at random.)
    """

    def make(self, seed: int, number: int, domain: Domain) -> BaseSampler:
        """Return the sampler of one proposal."""
        from scipy.stats.qmc import Sobol as Sequence  # noqa: PLC0415 - takes more than a second, for this sampler only

        sequence = Sequence(max(1, len(domain.knobs)), scramble=True, rng=seed_of(seed, 0))
        if number:
            sequence.fast_forward(number)
        (shares,) = sequence.random(1)
        values = zip(domain.knobs, shares, strict=False)
        return Given(domain, {knob.path: value_at(knob, float(share)) for knob, share in values})
