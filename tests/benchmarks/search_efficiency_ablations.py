"""Ablations: the sampler `frontier` without one of its ideas, each by its name."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final
from unittest.mock import patch

import numpy as np

from beats_search.search.frontier import choosing, surrogates
from beats_search.search.frontier.choosing import Choosing
from beats_search.search.samplers.frontier import Frontier


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """Settings of the sampler, whether it may ask what is known, and what is replaced in it for as long as it runs."""

    settings: Frontier = Frontier()
    asks: bool = True
    replaced: Callable[[], AbstractContextManager[Any]] = nullcontext


@contextmanager
def _no_bands() -> Iterator[None]:
    """Start with plans far from one another, whatever is known of them."""

    def anywhere(self: Choosing) -> Any:  # noqa: ANN401 - a row
        return self._farthest(self._unexplored())

    with patch.object(Choosing, "_spread_out", anywhere):
        yield


@contextmanager
def _no_neighbours() -> Iterator[None]:
    """Choose among random plans and those that were asked for."""
    with patch.object(choosing, "around", lambda space, *_: np.empty((0, len(space.names)))):
        yield


@contextmanager
def _no_clip() -> Iterator[None]:
    """Model all accuracies as they are, the low ones too."""
    with patch.object(surrogates, "_SHARES", (0.0,)):
        yield


ABLATIONS: Final[Mapping[str, Ablation]] = {
    "frontier_not_known": Ablation(asks=False),
    "frontier_1_query": Ablation(settings=Frontier(queries=1)),
    "frontier_5_queries": Ablation(settings=Frontier(queries=5)),
    "frontier_no_bands": Ablation(replaced=_no_bands),
    "frontier_no_neighbours": Ablation(replaced=_no_neighbours),
    "frontier_no_clip": Ablation(replaced=_no_clip),
    "frontier_no_belief": Ablation(settings=Frontier(belief=0)),
    "frontier_no_exploring": Ablation(settings=Frontier(explore_every=10**6)),
}
