"""Pareto: moocore's front and hypervolume against brute force on small integer points."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beats_search.pareto import Point, front, hypervolume
from beats_search.records.objective import Objective

ACCURACY = Objective(name="accuracy", direction="maximize")
LATENCY = Objective(name="latency_ms", direction="minimize")
SIZE = Objective(name="size_kb", direction="minimize")

GRID = st.integers(0, 6).map(float)
PAIRS = st.lists(st.tuples(GRID, GRID), max_size=12)
TRIPLES = st.lists(st.tuples(GRID, GRID, GRID), max_size=8)


def _dominates(one: Point, other: Point, objectives: tuple[Objective, ...]) -> bool:
    signs = [1 if objective.maximize else -1 for objective in objectives]
    gains = [sign * (a - b) for sign, a, b in zip(signs, one, other, strict=True)]
    return min(gains) >= 0 and max(gains) > 0


def _front_by_hand(points: list[Point], objectives: tuple[Objective, ...]) -> list[int]:
    kept: list[int] = []
    for index, point in enumerate(points):
        beaten = any(_dominates(other, point, objectives) for other in points)
        if not beaten and point not in [points[earlier] for earlier in kept]:
            kept.append(index)
    return kept


def _cells(points: list[Point], reference: Point, objectives: tuple[Objective, ...]) -> int:
    """Count the unit cells between the reference and some point."""
    signs = [1 if objective.maximize else -1 for objective in objectives]
    spans = [sorted({0, *(round(sign * (p[i] - reference[i])) for p in points)}) for i, sign in enumerate(signs)]
    boxes = itertools.product(*(range(max(span)) for span in spans))
    return sum(
        any(all(sign * (p[i] - reference[i]) > box[i] for i, sign in enumerate(signs)) for p in points) for box in boxes
    )


@given(PAIRS)
def test_front_of_two_objectives_is_brute_force(points: list[Point]) -> None:
    """The front holds exactly the points that none dominates, the first of equals."""
    assert list(front(points, (ACCURACY, LATENCY))) == _front_by_hand(points, (ACCURACY, LATENCY))


@given(TRIPLES)
def test_front_of_three_objectives_is_brute_force(points: list[Point]) -> None:
    """The same with a third objective."""
    objectives = (ACCURACY, LATENCY, SIZE)
    assert list(front(points, objectives)) == _front_by_hand(points, objectives)


@given(PAIRS)
def test_hypervolume_counts_cells(points: list[Point]) -> None:
    """On integer points the hypervolume is the number of unit cells that some point dominates."""
    reference = (1.0, 5.0)
    assert hypervolume(points, reference, (ACCURACY, LATENCY)) == _cells(points, reference, (ACCURACY, LATENCY))


@given(TRIPLES)
def test_hypervolume_of_three_counts_cells(points: list[Point]) -> None:
    """The same in three dimensions."""
    reference, objectives = (1.0, 5.0, 5.0), (ACCURACY, LATENCY, SIZE)
    assert hypervolume(points, reference, objectives) == _cells(points, reference, objectives)


@given(PAIRS, st.tuples(GRID, GRID))
def test_a_further_point_never_shrinks_the_volume(points: list[Point], more: Point) -> None:
    """Hypervolume is monotone."""
    reference = (0.0, 6.0)
    before = hypervolume(points, reference, (ACCURACY, LATENCY))
    assert hypervolume([*points, more], reference, (ACCURACY, LATENCY)) >= before


@pytest.mark.parametrize("points", [[], [(0.5, 9.0)]])
def test_nothing_better_than_the_reference_has_no_volume(points: list[Point]) -> None:
    """No points, or only points beyond the reference, dominate nothing."""
    assert hypervolume(points, (0.1, 5.0), (ACCURACY, LATENCY)) == 0
