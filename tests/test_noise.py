"""Noise: intervals that cover."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from beats_search.measuring.noise import centre_of, drifts, scatter_of


def test_scatter_is_not_taken_for_drift() -> None:
    """Of series without a trend hardly any is told to drift; one with a trend is, whichever its direction."""
    random = np.random.default_rng(0)
    told = [drifts(np.exp(random.normal(0, 0.1, 40))) for _ in range(200)]
    assert sum(told) <= 6
    rising = np.linspace(1, 1.4, 40)
    assert drifts(rising)
    assert drifts(rising[::-1])
    assert not drifts(np.linspace(1, 1.01, 40))  # certain, and not worth a word


@given(st.lists(st.floats(-1, 1), min_size=6, max_size=30), st.floats(-1, 1))
def test_a_centre_moves_with_its_numbers(numbers: list[float], shift: float) -> None:
    """A centre lies in its interval, and adding a constant moves both by it."""
    here = centre_of(np.array(numbers))
    there = centre_of(np.array(numbers) + shift)
    assert here.low <= here.value <= here.high
    assert (there.low, there.value, there.high) == pytest.approx(
        (here.low + shift, here.value + shift, here.high + shift), abs=1e-9
    )


@pytest.mark.parametrize("count", [6, 9, 14, 25])
def test_interval_of_a_centre_is_wilcoxon_s(count: int) -> None:
    """The interval holds just the shifts that Wilcoxon's exact test does not reject at 5 %."""
    numbers = np.random.default_rng(count).normal(0.1, 1, count)
    centre = centre_of(numbers)
    width = centre.high - centre.low
    for inside in (centre.low + 1e-6 * width, centre.high - 1e-6 * width):
        assert stats.wilcoxon(numbers - inside, method="exact").pvalue >= 0.04  # one rank of caution
    for outside in (centre.low - 0.2 * width, centre.high + 0.2 * width):
        assert stats.wilcoxon(numbers - outside, method="exact").pvalue < 0.05


@given(st.lists(st.floats(-1, 1), min_size=6, max_size=30), st.floats(0.1, 9), st.floats(-1, 1))
def test_scatter_is_a_ratio_of_widths(numbers: list[float], factor: float, shift: float) -> None:
    """It grows with the values' width, not with where they are; beside others that do not scatter it is 1."""
    values = np.round(np.array(numbers), 3)
    scatters = float(np.median(np.abs(values - np.median(values)))) > 0
    assert scatter_of(factor * values + shift, beside=values) == pytest.approx(factor if scatters else 1.0, rel=1e-6)
    assert scatter_of(values, beside=np.ones(len(values))) == 1.0
