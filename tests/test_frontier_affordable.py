"""Affordable: where measuring is dear beside training, few plans are measured, and none whose like was."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import optuna
import pytest
from search_toy import OBJECTIVES, domain

from beats_search.records.plan import TrialPlan
from beats_search.search.attempt import Known
from beats_search.search.foresight import Foresight
from beats_search.search.proposal import Asked
from beats_search.search.samplers.frontier import Frontier


def _foresight(known: Known) -> Foresight:
    """Return a foresight in which all trials cost 1."""
    point = {"accuracy": 0.1, "latency_ms": 100.0}
    return Foresight(objectives=OBJECTIVES, constraints=(), reference_point=point, known=known, cost=lambda _: 1.0)


def _asked(query_cost: float) -> int:
    """Return how many plans the first proposal measures where a trial costs 1."""
    asked: set[str] = set()

    def known(plan: TrialPlan) -> Mapping[str, float]:
        asked.add(plan.fingerprint())
        return {"latency_ms": float(str(plan.model["width"]))}

    foreseeing = replace(domain(), foresight=replace(_foresight(known), query_cost=query_cost))
    sampler = Frontier(startup=3, start_queries=50).make(0, 0, foreseeing)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    foreseeing.draw(Asked(study.ask()))
    return len(asked)


@pytest.mark.parametrize(("query_cost", "least", "most"), [(0.0, 30, 52), (10.0, 1, 12), (0.1, 12, 24)])
def test_no_more_is_measured_than_pays(query_cost: float, least: int, most: int) -> None:
    """Free queries are all made (the toy draws some plans twice); dear ones are made for a few plans only."""
    assert least <= _asked(query_cost) <= most


def _questions(decides: Callable[[str], bool]) -> list[object]:
    """Return the widths that ten proposals ask about."""
    asked: list[object] = []

    def known(plan: TrialPlan) -> Mapping[str, float]:
        asked.append(plan.model["width"])
        return {"latency_ms": float(str(plan.model["width"])) / 8}

    foreseeing = replace(domain(), foresight=replace(_foresight(known), decides=decides))
    settings = Frontier(startup=3, start_queries=9, pool=60)
    study = optuna.create_study(directions=["maximize", "minimize"])
    for number in range(10):
        study.sampler = settings.make(0, number, foreseeing)
        trial = study.ask()
        plan = foreseeing.draw(Asked(trial))
        study.tell(trial, [1 - abs(plan.training.lr - 0.1), float(str(plan.model["width"])) / 8])
    return asked


def test_what_is_known_of_a_structure_is_asked_once() -> None:
    """Of three widths there are three questions where nothing else decides, and more where anything may."""
    assert sorted(map(str, _questions(lambda path: path.startswith("model.")))) == ["16", "32", "8"]
    assert len(_questions(lambda _: True)) > 9
