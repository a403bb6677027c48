"""Frontier: what is known before training and what training taught in, the proposal with the most expected gain out.

Latency, size and the like are measured before a plan is trained, so that only accuracy is uncertain,
and the hypervolume to expect of a plan has a closed form (`search.improvement`). Accuracy is modelled
by a Gaussian process; a plan's latency by another one until it is measured, and what has been
measured once stays known. Nothing is remembered but what the study holds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, final

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import intersection_search_space
from optuna.trial import FrozenTrial

from beats_search.search.domain import Domain, value_at
from beats_search.search.foresight import Foresight
from beats_search.search.frontier.choosing import Choosing, Pace
from beats_search.search.frontier.codes import Codes
from beats_search.search.frontier.history import Note, read_history, signs_of, write_note
from beats_search.search.frontier.oracle import OfDomain, OfFunction, oracle_of
from beats_search.search.improvement import Array
from beats_search.search.one_thread import on_one_thread
from beats_search.search.proposal import seed_of
from beats_search.space.draw import Replay

__all__ = ["Frontier"]


_WORTH_ASKING: Final = 0.25
"""The share of a trial's cost that may go into asking what is known of others."""

_FIRST_ROUND: Final = 6
"""So many times what each later proposal may ask is asked at the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """Measures latency before training and proposes the most expected gain in hypervolume.

    At first `start_queries` plans are measured and the first `startup` trials spread over them, the
    reference among these where there is one; half of them are like the best so far. Then each
    proposal measures at most `queries` plans of a pool of `pool` random ones and neighbours of the
    front. Every `explore_every`-th trial goes where most would be gained if it came out much
    better than expected. The gain, and how far a plan is from others at first, is divided by the cost
    of training to a power that falls from 1 to 0 over the first `cooling` trials. Where measuring
    costs a good part of a trial, fewer plans are measured: no more than pays. A logarithmic range on
    which nothing known before training depends, such as that of a learning rate, is believed to be right
    near what the reference has, else near its middle: in full for `belief` trials, then less and less.
    """

    startup: int = 6
    start_queries: int = 100
    queries: int = 20
    pool: int = 1500
    explore_every: int = 10
    cooling: int = 60
    belief: int = 20

    def __post_init__(self) -> None:
        """Refuse a search without a beginning, without plans, or made of exploration alone."""
        least = {
            "startup": 2,
            "start_queries": 1,
            "queries": 0,
            "pool": 10,
            "explore_every": 2,
            "cooling": 1,
            "belief": 0,
        }
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"frontier.{name} needs to be at least {low}, got {getattr(self, name)}")

    def make(self, seed: int, number: int, domain: Domain) -> BaseSampler:
        """Return the sampler of one proposal."""
        return _Proposal(self, seed_of(seed, number), domain)


@final
class FrontierSampler(BaseSampler):
    """The sampler for any Optuna study with two or more objectives.

    `known(params)` returns a value for each objective that is known before a trial, None for others,
    and may raise for values that cannot be tried; without it all objectives are modelled. What it
    returned holds for all params that differ in nothing that `decides(name)` tells it to depend on.
    The reference point has a value for each objective; without it a corner below all that was seen is.
    The settings say more of what is believed of knobs on which nothing known depends (`belief`).
    """

    def __init__(
        self,
        known: Callable[[dict[str, Any]], Sequence[float | None]] | None = None,
        *,
        seed: int = 0,
        decides: Callable[[str], bool] = lambda _: True,
        reference_point: Sequence[float] | None = None,
        settings: Frontier = Frontier(),
    ) -> None:
        """Keep what never changes; the rest is in the study."""
        self._known = known
        self._decides = decides
        self._seed = seed
        self._reference_point = reference_point
        self._settings = settings

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the knobs that all finished trials have and that have more than one value."""
        del trial
        space = intersection_search_space(study.get_trials(deepcopy=False))
        return {name: distribution for name, distribution in space.items() if not distribution.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the values of a proposal."""
        names = tuple(str(number) for number in range(len(study.directions)))
        corner = None if self._reference_point is None else signs_of(study) * self._reference_point
        proposing = _Proposing(
            self._settings, OfFunction(names, self._known, self._decides), corner, seed_of(self._seed, trial.number)
        )
        return proposing.propose(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401 - Optuna's signature
        """Return a random value for a knob that not all trials have."""
        random = RandomSampler(seed=seed_of(self._seed, trial.number))
        return random.sample_independent(study, trial, param_name, param_distribution)


@final
class _Proposal(BaseSampler):
    """The sampler of one proposal of a run."""

    def __init__(self, settings: Frontier, seed: int, domain: Domain) -> None:
        self._settings = settings
        self._seed = seed
        self._domain = domain
        self._random = RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        del study, trial
        return self._domain.distributions()

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        foresight = self._domain.foresight
        numbered = (str(number) for number in range(len(study.directions)))
        names = (
            tuple(goal.name for goal in foresight.objectives) if foresight else tuple(study.metric_names or numbered)
        )
        point = foresight.reference_point if foresight else study.user_attrs.get("reference_point", {})
        corner = signs_of(study) * [point[name] for name in names] if point.keys() >= set(names) else None
        settings = self._settings if foresight is None else _affordable(self._settings, self._domain, foresight)
        proposing = _Proposing(settings, oracle_of(self._domain, names), corner, self._seed)
        return proposing.propose(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:  # noqa: ANN401 - Optuna's signature
        return self._random.sample_independent(study, trial, param_name, param_distribution)


def _affordable(settings: Frontier, domain: Domain, foresight: Foresight) -> Frontier:
    """Return the settings with no more queries than are worth a share of what a trial costs."""
    if not foresight.query_cost:
        return settings
    middle = domain.draw(Replay({knob.path: value_at(knob, 0.5) for knob in domain.knobs}))
    each = max(1, int(_WORTH_ASKING * foresight.cost(middle) / foresight.query_cost))
    first = max(settings.startup, _FIRST_ROUND * each)
    queries, start = min(settings.queries, each), min(settings.start_queries, first)
    return replace(settings, queries=queries, start_queries=start)


@final
@dataclass(frozen=True, slots=True, eq=False)
class _Proposing:
    """A study in, one proposal out, which leaves a note with its trial."""

    settings: Frontier
    oracle: OfFunction | OfDomain
    corner: Array | None
    seed: int

    def propose(self, study: Study, trial: FrozenTrial, space: dict[str, BaseDistribution]) -> dict[str, Any]:
        """Return the values of the knobs that the proposed plan uses."""
        codes = Codes(space)
        if not codes.names:
            return {}
        ours = isinstance(self.oracle, OfDomain)
        history = read_history(
            study, codes, self.oracle.names, trial.number, ours=ours, reference=self.oracle.reference(codes)
        )
        choosing = Choosing(
            codes,
            self.oracle,
            history,
            signs=signs_of(study),
            corner=self.corner,
            pace=self._pace(),
            rng=np.random.default_rng(self.seed),
        )
        with on_one_thread():
            row = choosing.choose()
        write_note(study, trial, codes, Note(asked=choosing.asking.fresh, chosen=row.tobytes()))
        return codes.params(row)

    def _pace(self) -> Pace:
        settings = self.settings
        return Pace(
            startup=settings.startup,
            start_queries=settings.start_queries,
            queries=settings.queries,
            pool=settings.pool,
            explore_every=settings.explore_every,
            cooling=settings.cooling,
            belief=settings.belief,
        )
