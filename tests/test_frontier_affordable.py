"""Affordable: where measuring is dear beside training, few plans are measured; where it is cheap, as many as asked."""

from collections.abc import Mapping
from dataclasses import replace

import optuna
import pytest
from search_toy import OBJECTIVES, domain

from beats_search.records.plan import TrialPlan
from beats_search.search.foresight import Foresight
from beats_search.search.proposal import Asked
from beats_search.search.samplers.frontier import Frontier


def _asked(query_cost: float) -> int:
    """Return how many plans the first proposal measures where a trial costs 1."""
    asked: set[str] = set()

    def known(plan: TrialPlan) -> Mapping[str, float]:
        asked.add(plan.fingerprint())
        return {"latency_ms": float(str(plan.model["width"]))}

    foresight = Foresight(
        objectives=OBJECTIVES,
        constraints=(),
        reference_point={"accuracy": 0.1, "latency_ms": 100.0},
        known=known,
        cost=lambda _: 1.0,
        query_cost=query_cost,
    )
    foreseeing = replace(domain(), foresight=foresight)
    sampler = Frontier(startup=3, start_queries=50).make(0, 0, foreseeing)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    foreseeing.draw(Asked(study.ask()))
    return len(asked)


@pytest.mark.parametrize(("query_cost", "least", "most"), [(0.0, 30, 52), (10.0, 1, 12), (0.1, 12, 24)])
def test_no_more_is_measured_than_pays(query_cost: float, least: int, most: int) -> None:
    """Free queries are all made (the toy draws some plans twice); dear ones are made for a few plans only."""
    assert least <= _asked(query_cost) <= most
