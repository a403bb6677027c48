"""Latency: ratios and intervals on a clock that the test turns."""

import math
import time
from collections.abc import Callable

import numpy as np
import pytest
from timing_toy import Bench, as_seen, bursts, lognormal

from beats_search.measuring.blocks import Protocol
from beats_search.measuring.latency import measure_latency, measure_together


def test_latency_of_a_quiet_machine_is_exact() -> None:
    """Without noise ratio and scaled median are the true ones, and the interval is what one sitting cannot see: 2 %."""
    bench = Bench()
    latency = measure_latency(
        bench.session("candidate", 0.001),
        bench.session("reference", 0.004),
        reference_median_ms=4.0,
        clocks=bench.clocks,
    )
    assert latency.ratio == pytest.approx(0.25)
    assert latency.median_ms == pytest.approx(1.0)
    assert latency.raw_median_ms == pytest.approx(1.0)
    assert (latency.interval_ms.low, latency.interval_ms.high) == pytest.approx((0.98, 1.02), rel=1e-3)
    assert latency.settled
    assert (latency.disturbed_blocks, latency.disturbed, latency.drifted) == (0, False, False)


def test_reference_without_a_stored_median_sets_the_scale() -> None:
    """The first measurement is on the scale of the reference as it was timed beside it."""
    bench = Bench()
    latency = measure_latency(bench.session("a", 0.002), bench.session("b", 0.004), clocks=bench.clocks)
    assert latency.median_ms == pytest.approx(2.0)


def test_every_block_opens_a_fresh_session_beside_the_reference() -> None:
    """Candidate and reference open equally often, in both orders."""
    bench = Bench(noise=lognormal(0.1))
    latency = measure_latency(bench.session("c", 0.001), bench.session("r", 0.001), clocks=bench.clocks)
    rounds = list(zip(bench.opened[::2], bench.opened[1::2], strict=True))
    assert len(rounds) == latency.blocks
    assert set(rounds) == {("c", "r"), ("r", "c")}


def test_every_round_times_all_candidates_in_random_order() -> None:
    """Together, each round has one block of everyone, and the orders differ."""
    bench = Bench(noise=lognormal(0.1))
    candidates = [bench.session(name, 0.001) for name in "abc"]
    latencies = measure_together(candidates, bench.session("r", 0.001), clocks=bench.clocks)
    rounds = list(zip(*[iter(bench.opened)] * 4, strict=True))
    assert {latency.blocks for latency in latencies} == {len(rounds)}
    assert all(set(names) == set("abcr") for names in rounds)
    assert len(set(rounds)) > 10


def test_candidates_that_are_timed_together_share_one_scale() -> None:
    """Each of several candidates gets its own ratio, in the order in which they were given."""
    bench = Bench()
    candidates = [bench.session(name, seconds) for name, seconds in (("a", 0.001), ("b", 0.003))]
    latencies = measure_together(candidates, bench.session("r", 0.002), reference_median_ms=10.0, clocks=bench.clocks)
    assert [latency.median_ms for latency in latencies] == pytest.approx([5.0, 15.0])


def test_the_budget_is_for_each_candidate() -> None:
    """Three candidates that do not settle are timed three times as long as one."""
    bench = Bench(noise=lognormal(0.3))
    rules = Protocol(half_width=0.001, budget_s=1.0)
    candidates = [bench.session(name, 0.001) for name in "abc"]
    measure_together(candidates, bench.session("r", 0.001), protocol=rules, clocks=bench.clocks)
    assert 3.0 <= bench.now < 3.2


def test_timing_ends_when_the_budget_is_spent() -> None:
    """A noisy machine is timed until the budget is gone, and the result says that it did not settle."""
    bench = Bench(noise=lognormal(0.3))
    rules = Protocol(half_width=0.001, budget_s=1.0)
    candidate, reference = bench.session("c", 0.001), bench.session("r", 0.001)
    latency = measure_latency(candidate, reference, protocol=rules, clocks=bench.clocks)
    assert not latency.settled
    assert 1.0 <= bench.now < 1.2


@pytest.mark.parametrize(("count", "calls"), [(1, 24), (20, 252)])
def test_a_slow_call_is_made_no_more_often_than_an_interval_needs(count: int, calls: int) -> None:
    """A call as long as the budget is made once a block, after one to warm up, in the fewest rounds."""
    bench, made = Bench(), list[int]()

    def slow() -> Callable[[], None]:
        def call() -> None:
            made.append(1)
            bench.work(2.0)

        return call

    latencies = measure_together([slow] * count, slow, clocks=bench.clocks)
    assert {(latency.blocks, latency.calls) for latency in latencies} == {(6, 6)}
    assert len(made) == calls
    assert all(latency.ratio_interval.low < 1 < latency.ratio_interval.high for latency in latencies)


@pytest.mark.parametrize(("opening", "sessions"), [(0.01, None), (0.3, 3)])
def test_sessions_that_take_long_to_open_are_used_again(opening: float, sessions: int | None) -> None:
    """A fresh session for each block, unless opening one takes longer than its block may: then three in turn."""
    bench = Bench(noise=lognormal(0.1))

    def slowly(name: str) -> Callable[[], Callable[[], None]]:
        ready = bench.session(name, 0.005)

        def open_session() -> Callable[[], None]:
            bench.work(opening)
            return ready()

        return open_session

    latency = measure_latency(slowly("c"), slowly("r"), clocks=bench.clocks)
    assert latency.blocks >= Protocol().least_rounds
    assert bench.opened.count("c") == bench.opened.count("r") == (sessions or latency.blocks)
    assert bench.now < 2 * 3 * opening + 1.1 * Protocol().budget_s


def test_a_longer_call_is_made_less_often() -> None:
    """As calls get longer, blocks have fewer of them, from many to one, and the budget is hardly exceeded."""
    made = []
    for seconds in (0.0001, 0.001, 0.01, 0.02, 0.05):
        bench, rules = Bench(), Protocol(half_width=-1.0)  # so that nothing ends it but the budget
        candidate, reference = bench.session("c", seconds), bench.session("r", seconds)
        latency = measure_latency(candidate, reference, protocol=rules, clocks=bench.clocks)
        made.append(latency.calls / latency.blocks)
        assert bench.now < 1.5 * rules.budget_s
        assert latency.blocks >= rules.least_rounds
    assert made == sorted(made, reverse=True)
    assert made[2] == pytest.approx(3.0)
    assert made[4] == pytest.approx(1.0)


def test_a_long_block_in_which_the_process_waited_is_not_repeated_for_long() -> None:
    """Where a call is longer than what its block and its repeats may take, waiting does not make it three times."""
    bench, made = Bench(), list[int]()

    def crowded() -> Callable[[], None]:
        def call() -> None:
            made.append(1)
            bench.now += 1.0
            bench.ran += 0.5

        return call

    latency = measure_latency(crowded, crowded, clocks=bench.clocks)
    assert len(made) == 24
    assert latency.disturbed


@pytest.mark.parametrize(
    "noise", [lognormal(0.02), lognormal(0.1), lognormal(0.3), as_seen], ids=["2 %", "10 %", "30 %", "as seen"]
)
@pytest.mark.parametrize("rough", [False, True], ids=["steady", "drifting and busy"])
def test_interval_covers_the_true_ratio(noise: Callable[[np.random.Generator], float], *, rough: bool) -> None:
    """By the rules as shipped, at least 90 % of the intervals hold the truth, whatever the machine does."""
    held, repeats = 0, 120
    for seed in range(repeats):
        random = np.random.default_rng(seed)
        bench = Bench(noise=noise, random=random, drift=0.2 * rough, busy=bursts(random) if rough else ())
        candidate, reference = bench.session("c", 0.0012), bench.session("r", 0.0024)
        latency = measure_latency(candidate, reference, clocks=bench.clocks, seed=seed)
        held += latency.ratio_interval.low <= 0.5 <= latency.ratio_interval.high
    assert held / repeats >= 0.9


@pytest.mark.parametrize(("crowded", "scatter"), [(False, 0.01), (True, 0.1)], ids=["among few", "among others"])
def test_intervals_cover_what_differs_between_sittings(scatter: float, *, crowded: bool) -> None:
    """Sittings whose true ratios scatter by 1 %, or by 10 % among others, hold the ratio of the long run."""
    held, repeats = 0, 100
    for seed in range(repeats):
        random = np.random.default_rng(seed)
        bench = Bench(noise=lognormal(0.01), random=random, crowded_at=0.0 if crowded else math.inf)
        sitting = math.exp(scatter * random.standard_normal())
        candidate, reference = bench.session("c", 0.0012 * sitting), bench.session("r", 0.0024)
        latency = measure_latency(candidate, reference, clocks=bench.clocks, seed=seed)
        held += latency.ratio_interval.low <= 0.5 <= latency.ratio_interval.high
    assert held / repeats >= 0.9


def test_the_work_beside_the_calls_does_not_grow() -> None:
    """A block of very many fast calls costs a few microseconds a call."""
    calls = 0
    began = time.perf_counter()

    def call() -> None:
        nonlocal calls
        calls += 1

    rules = Protocol(min_rounds=3, least_rounds=3, budget_s=0.0, block_s=0.02, warmup_s=0.0)
    measure_latency(lambda: call, lambda: call, protocol=rules)
    assert (time.perf_counter() - began) / calls < 2e-5
