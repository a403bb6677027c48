"""Measuring: intervals that cover, and latencies on a clock that the test turns."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from beats_search.measuring.latency import Clocks, Protocol, measure_latency, measure_together
from beats_search.measuring.neighbours import clock_of_others
from beats_search.measuring.noise import centre_of, drifts


@dataclass
class Bench:
    """A machine whose calls take as long as the test says.

    Each session has a pace of its own, the machine gets slower by `drift` a second, and while another
    process holds its core (`busy`, in seconds of the clock) nothing runs. From `crowded_at` on, others
    keep half of all cores busy.
    """

    noise: Callable[[np.random.Generator], float] = lambda _: 1.0
    drift: float = 0.0
    busy: tuple[tuple[float, float], ...] = ()
    crowded_at: float = math.inf
    now: float = 0.0
    ran: float = 0.0
    opened: list[str] = field(default_factory=list)
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))

    @property
    def clocks(self) -> Clocks:
        return Clocks(
            wall=lambda: self.now, processor=lambda: self.ran, others=lambda: max(0.0, self.now - self.crowded_at) / 2
        )

    def work(self, seconds: float) -> None:
        self.ran += seconds
        for began, ended in self.busy:
            if began <= self.now < ended:
                self.now = ended
        self.now += seconds

    def session(self, name: str, seconds: float) -> Callable[[], Callable[[], None]]:
        def open_session() -> Callable[[], None]:
            self.opened.append(name)
            pace = seconds * self.noise(self.random)
            return lambda: self.work(pace * (1 + self.drift * self.now))

        return open_session


def lognormal(sigma: float) -> Callable[[np.random.Generator], float]:
    """Return what makes the pace of a session: scattered by `sigma` in logarithms."""
    return lambda random: math.exp(sigma * random.standard_normal())


def as_seen(random: np.random.Generator) -> float:
    """Return the pace of a session as two sessions of one file were seen to differ."""
    return random.uniform(0.78, 1.22)


def bursts(random: np.random.Generator) -> tuple[tuple[float, float], ...]:
    """Return when another process holds the core: for 2-60 ms, about 5 times a second."""
    starts = np.cumsum(random.exponential(0.2, size=40))
    return tuple((float(start), float(start + random.uniform(0.002, 0.06))) for start in starts)


def exactly(count: int) -> Protocol:
    """Return rules by which so many rounds are timed, where each takes 10 to 40 ms."""
    return Protocol(min_rounds=count, least_rounds=count, budget_s=0.04 * count, half_width=math.inf)


def test_latency_of_a_quiet_machine_is_exact() -> None:
    """Without noise ratio and scaled median are the true ones, and the interval is what one sitting cannot see: 2 %."""
    bench = Bench()
    latency = measure_latency(
        bench.session("candidate", 0.001),
        bench.session("reference", 0.004),
        reference_median_ms=8.0,
        clocks=bench.clocks,
    )
    assert latency.ratio == pytest.approx(0.25)
    assert latency.median_ms == pytest.approx(2.0)
    assert latency.raw_median_ms == pytest.approx(1.0)
    assert (latency.interval_ms.low, latency.interval_ms.high) == pytest.approx((1.96, 2.04), rel=1e-3)
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


def test_a_block_in_which_the_process_waited_is_timed_again() -> None:
    """A burst that holds the core leaves no trace in the ratio, and the record does not complain."""
    bench = Bench(busy=((0.011, 0.030), (0.2, 0.21)))
    rules = exactly(20)
    candidate, reference = bench.session("c", 0.002), bench.session("r", 0.004)
    latency = measure_latency(candidate, reference, protocol=rules, clocks=bench.clocks)
    assert latency.ratio == pytest.approx(0.5)
    assert len(bench.opened) > 2 * latency.blocks
    assert (latency.disturbed_blocks, latency.disturbed) == (0, False)


def test_a_busy_machine_is_told() -> None:
    """Where the process has to wait in every block, no block is repeated for ever, and the record says so."""
    bench = Bench()

    def slow_machine() -> Callable[[], None]:
        bench.opened.append("")

        def call() -> None:
            bench.now += 0.002
            bench.ran += 0.001

        return call

    latency = measure_latency(slow_machine, slow_machine, clocks=bench.clocks)
    assert len(bench.opened) == Protocol().attempts * 2 * latency.blocks
    assert latency.disturbed_blocks == 2 * latency.blocks
    assert latency.disturbed


@pytest.mark.parametrize("beginning", [0.0, 1.0])
def test_others_that_compute_are_told(beginning: float) -> None:
    """Where others keep half of the cores busy, rounds are disturbed although nobody waits, and intervals are wider."""
    bench = Bench(crowded_at=beginning)
    rules = exactly(100)
    candidate, reference = bench.session("c", 0.002), bench.session("r", 0.004)
    latency = measure_latency(candidate, reference, protocol=rules, clocks=bench.clocks)
    share = 1 - beginning / bench.now
    assert latency.disturbed_blocks == pytest.approx(2 * latency.blocks * share, abs=0.1 * 2 * latency.blocks)
    assert latency.disturbed
    assert math.log(latency.ratio_interval.high / latency.ratio) == pytest.approx(0.02 + 0.18 * share, abs=0.02)
    assert len(bench.opened) == 2 * latency.blocks  # no block is timed again for it


def test_a_few_that_compute_beside_are_not_told() -> None:
    """What others compute on less than a fifth of all cores is no disturbance, nor is what this process computes."""
    bench = Bench()
    rules = exactly(100)
    clocks = replace(bench.clocks, others=lambda: 0.19 * bench.now)
    candidate, reference = bench.session("c", 0.002), bench.session("r", 0.004)
    assert measure_latency(candidate, reference, protocol=rules, clocks=clocks).disturbed_blocks == 0


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


def test_the_clock_of_others_counts_what_this_process_did_not(tmp_path: Path) -> None:
    """It is what the kernel counts on all cores, less the own seconds, and stands still where no kernel counts."""
    stat, own = tmp_path / "stat", [5.0]
    clock = clock_of_others(stat_of(stat, user=1000, steal=0, idle=7000), own=lambda: own[0], cores=4)
    began = clock()
    own[0] += 1.0
    stat_of(stat, user=1100, steal=0, idle=7300)
    assert clock() == pytest.approx(began)
    stat_of(stat, user=1300, steal=100, idle=7300)
    assert clock() == pytest.approx(began + 3.0 / 4)
    gone = clock_of_others(tmp_path / "gone")
    assert gone() == gone() == 0.0


def stat_of(path: Path, *, user: int, steal: int, idle: int) -> Path:
    """Write what the kernel would tell, in hundredths of a second."""
    path.write_text(f"cpu  {user} 0 0 {idle} 50 0 0 {steal} 9 9\ncpu0 1 2 3\n", encoding="ascii")
    return path


def test_a_machine_that_gets_slower_is_told() -> None:
    """A trend of the reference over the rounds is noticed; it does not move the ratio."""
    bench = Bench(noise=lognormal(0.03), drift=0.5)
    rules = exactly(50)
    candidate, reference = bench.session("c", 0.001), bench.session("r", 0.002)
    latency = measure_latency(candidate, reference, protocol=rules, clocks=bench.clocks)
    assert latency.drifted
    assert latency.ratio == pytest.approx(0.5, rel=0.03)


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
