"""Fitting: whatever a space draws, it finds the values again; what it cannot draw has none."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_toy import REFERENCE, domain, space

from beats_search.search.domain import value_at
from beats_search.space.draw import Replay, draw
from beats_search.space.fitting import values_of


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=5, max_size=5))
def test_a_drawn_plan_gives_its_values_back(shares: list[float]) -> None:
    """The values of a plan draw that very plan."""
    values = {knob.path: value_at(knob, share) for knob, share in zip(domain().knobs, shares, strict=False)}
    plan = draw(space(), Replay(values))
    found = values_of(space(), plan)
    assert found is not None
    assert draw(space(), Replay(found)) == plan
    assert found.items() <= values.items()


@pytest.mark.parametrize("change", [{"lr": 2.0}, {"epochs": 2}, {"batch_size": 8}])
def test_a_plan_outside_the_space_has_none(change: dict[str, float]) -> None:
    """A number out of range, another fixed value, or a default that was changed: none is in the space."""
    values = {knob.path: value_at(knob, 0.5) for knob in domain().knobs}
    plan = draw(space(), Replay(values))
    outside = replace(plan, training=replace(plan.training, **change))  # type: ignore[arg-type]  # from a dict
    inside = "batch_size" in change  # which the toy space leaves at its default, and so does not hold
    assert (values_of(space(), outside) is None) is not inside


def test_another_part_has_none() -> None:
    """A plan without compression is not in a space with one technique."""
    assert values_of(space(), REFERENCE) is None
