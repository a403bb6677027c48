"""Timing on a machine that is not alone: what is waited for, left out, corrected and told."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from timing_toy import Bench, exactly, lognormal

from beats_search.measuring.blocks import Protocol
from beats_search.measuring.latency import measure_latency, measure_together
from beats_search.measuring.neighbours import clock_of_others
from beats_search.measuring.yardstick import Yardstick


def test_a_block_in_which_the_process_waited_is_timed_again() -> None:
    """A burst that holds the core leaves no trace in the ratio, and the record does not complain."""
    bench = Bench(busy=((0.013, 0.032), (0.2, 0.21)))
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


def test_others_that_compute_are_told() -> None:
    """Where others keep half of the cores busy, all is disturbed although nobody waits, and intervals are wider."""
    bench = Bench(crowded_at=0.0)
    rules = exactly(100)
    candidate, reference = bench.session("c", 0.002), bench.session("r", 0.004)
    latency = measure_latency(candidate, reference, protocol=rules, clocks=bench.clocks)
    assert latency.disturbed_blocks == 2 * latency.blocks
    assert latency.disturbed
    assert math.log(latency.ratio_interval.high / latency.ratio) == pytest.approx(0.29, abs=0.02)
    assert len(bench.opened) == 2 * latency.blocks  # no block is timed again for it, and no round is added


def test_rounds_before_others_came_are_enough() -> None:
    """What was timed while others computed is left out where enough rounds remain."""
    bench, rules = Bench(crowded_at=1.0), replace(exactly(100), least_rounds=6)
    candidate, reference = bench.session("c", 0.002), bench.session("r", 0.004)
    latency = measure_latency(candidate, reference, protocol=rules, clocks=bench.clocks)
    assert latency.disturbed_blocks == 0
    assert 2 * latency.blocks == pytest.approx(len(bench.opened) / bench.now, rel=0.2)


def test_a_few_that_compute_beside_are_not_told() -> None:
    """What others compute on less than a fifth of all cores is no disturbance, nor is what this process computes."""
    bench = Bench()
    rules = exactly(100)
    clocks = replace(bench.clocks, others=lambda: 0.19 * bench.now)
    candidate, reference = bench.session("c", 0.002), bench.session("r", 0.004)
    assert measure_latency(candidate, reference, protocol=rules, clocks=clocks).disturbed_blocks == 0


@pytest.mark.parametrize("stretches", [((0.0, 0.5),), ((0.3, 0.8),), ((0.2, 0.3), (0.5, 0.9), (1.0, 1.3))])
def test_stretches_with_a_neighbour_on_the_core_leave_no_trace(stretches: tuple[tuple[float, float], ...]) -> None:
    """Where a neighbour slows a small model more than a large one, the ratio is that of the rounds without."""
    bench, rules = Bench(shared=stretches), replace(exactly(60), least_rounds=6)
    candidate, reference = bench.session("c", 0.001, slowed=1.6), bench.session("r", 0.004, slowed=1.2)
    latency = measure_latency(candidate, reference, protocol=rules, clocks=bench.clocks)
    assert latency.ratio == pytest.approx(0.25)
    assert latency.disturbed_blocks == 0
    assert Protocol().least_rounds <= latency.blocks < len(bench.opened) / 2


@pytest.mark.parametrize(("seconds", "slowed"), [(0.0004, 1.6), (0.0038, 1.2)], ids=["small", "like the reference"])
def test_a_neighbour_on_the_core_hardly_moves_what_is_told_at_the_usual_time(seconds: float, slowed: float) -> None:
    """A small model is slowed as arithmetic is, one like the reference as that; the interval holds the truth."""
    bench = Bench()
    candidate, reference = bench.session("c", seconds, slowed=slowed), bench.session("r", 0.004, slowed=1.2)
    bench.learn_its_pace()
    bench.shared = ((0.0, math.inf),)
    latency = measure_latency(candidate, reference, reference_median_ms=4.0, clocks=bench.clocks)
    assert latency.median_ms == pytest.approx(1000 * seconds, rel=0.05)
    assert latency.interval_ms.low <= 1000 * seconds <= latency.interval_ms.high
    assert latency.disturbed


@pytest.mark.parametrize("crowded_at", [math.inf, 0.0], ids=["a neighbour", "others"])
def test_a_neighbour_who_stays_is_waited_for_and_told(crowded_at: float) -> None:
    """A sitting that hardly has rounds without goes on for more budgets, but not where others compute here, too."""
    bench = Bench(crowded_at=crowded_at)
    candidate, reference = bench.session("c", 0.001, slowed=1.6), bench.session("r", 0.004, slowed=1.2)
    bench.learn_its_pace()
    bench.shared, began = ((0.0, math.inf),), bench.now
    latency = measure_latency(candidate, reference, clocks=bench.clocks)
    assert latency.disturbed
    assert latency.ratio == pytest.approx(0.25 * 1.6 / 1.2)
    assert latency.ratio_interval.low <= 0.25 <= latency.ratio_interval.high
    waited = Protocol().budget_s * (Protocol().patience if crowded_at else 0.25)
    assert bench.now - began == pytest.approx(waited, rel=0.1)


def test_a_neighbour_who_has_been_there_for_long_is_told_and_not_waited_for() -> None:
    """After 30 s without a fast moment a sitting takes no longer than elsewhere, and still says what is wrong."""
    bench = Bench()
    candidate, reference = bench.session("c", 0.001, slowed=1.6), bench.session("r", 0.004, slowed=1.2)
    bench.learn_its_pace()
    bench.shared = ((0.0, math.inf),)
    sittings = []
    for _ in range(12):
        bench.now += 5.0
        began = bench.now
        latency = measure_latency(candidate, reference, clocks=bench.clocks)
        sittings.append((bench.now - began, latency.disturbed))
    assert all(disturbed for _, disturbed in sittings)
    assert sittings[0][0] > Protocol().budget_s
    assert sittings[-1][0] < 0.5 * Protocol().budget_s


@pytest.mark.parametrize("arrives", [3.0, 8.0])
def test_a_neighbour_who_comes_while_many_are_timed_does_not_become_the_rule(arrives: float) -> None:
    """What was timed before a neighbour came counts, though he has been there for most of a long sitting."""
    bench = Bench()
    bench.learn_its_pace()
    bench.shared = ((bench.now + arrives, math.inf),)
    candidates = [bench.session(str(number), 0.001, slowed=1.6) for number in range(20)]
    reference = bench.session("r", 0.004, slowed=1.2)
    rules = Protocol(half_width=0.0)
    for latency in measure_together(candidates, reference, protocol=rules, clocks=bench.clocks):
        assert latency.ratio == pytest.approx(0.25)
        assert latency.disturbed_blocks == 0


def test_a_machine_that_is_never_faster_is_not_waited_for() -> None:
    """Where each reading is as long as the others, none is slow: the pace of this machine is what counts."""
    bench = Bench(shared=((0.0, math.inf),))
    candidate, reference = bench.session("c", 0.001, slowed=1.6), bench.session("r", 0.004, slowed=1.6)
    latency = measure_latency(candidate, reference, clocks=bench.clocks)
    assert latency.ratio == pytest.approx(0.25)
    assert not latency.disturbed
    assert bench.now < 0.5 * Protocol().budget_s


def test_a_yardstick_forgets_a_speed_that_is_past() -> None:
    """A reading is slow from a fifth above the best of ten minutes on, or of 60 seconds; without readings none is."""
    pace, now = [1e-4], [0.0]

    def work() -> None:
        now[0] += pace[0]

    def reads_for(seconds: int) -> None:
        for _ in range(10 * seconds):
            now[0] += 0.1
            yardstick.read()

    yardstick = Yardstick(clock=lambda: now[0], work=work)
    assert yardstick.limit() == math.inf
    reads_for(120)
    assert yardstick.limit() == pytest.approx(1.2e-4)
    pace[0] = 1.5e-4
    reads_for(60)
    assert yardstick.read() > yardstick.limit() == pytest.approx(1.2e-4)
    assert not yardstick.was_fast_lately()
    now[0] += 3600
    yardstick.read()
    assert yardstick.limit() == pytest.approx(1.2 * 1.5e-4)  # the last 60 seconds with a reading were all slow
    reads_for(3)
    pace[0] = 1e-4
    reads_for(1)
    assert yardstick.was_fast_lately()


@pytest.mark.parametrize("slowness", [1.0, 1.05, 1.15, 0.93])
@pytest.mark.parametrize("alike", [0.0, 0.5, 1.0], ids=["alone", "half as much", "alike"])
def test_intervals_hold_whyever_the_reference_is_away(slowness: float, alike: float) -> None:
    """The reference scatters by 5 % and is off its usual time; a steady candidate may be off as well, or not."""
    held, repeats = 0, 40
    for seed in range(repeats):
        bench = Bench(noise=lognormal(0.05), random=np.random.default_rng(seed))
        reference = bench.session("r", 0.004 * slowness)

        def candidate(bench: Bench = bench) -> Callable[[], None]:
            return lambda: bench.work(0.001 * slowness**alike)

        latency = measure_latency(candidate, reference, reference_median_ms=4.0, clocks=bench.clocks, seed=seed)
        held += latency.interval_ms.low <= 1.0 <= latency.interval_ms.high
    assert held / repeats >= 0.9


def test_scatter_of_the_reference_alone_does_not_move_a_candidate() -> None:
    """A candidate whose rounds do not scatter is told as it is, and timing ends as soon as that is clear."""
    bench = Bench(noise=lognormal(0.03))

    def candidate() -> Callable[[], None]:
        return lambda: bench.work(0.001)

    reference = bench.session("r", 0.0042)
    latency = measure_latency(candidate, reference, reference_median_ms=4.0, clocks=bench.clocks)
    assert latency.median_ms == pytest.approx(1.0, rel=0.01)
    assert latency.settled
    assert latency.ratio_interval.high / latency.ratio_interval.low < 1.15


def test_what_slows_candidate_and_reference_alike_cancels() -> None:
    """A candidate that is slower whenever the reference is is told at the reference's usual time."""
    bench = Bench(noise=lognormal(0.002), arithmetic=1.0, shared=((0.0, 0.15),))
    candidate, reference = (bench.session(name, seconds, slowed=1.08) for name, seconds in (("c", 0.001), ("r", 0.004)))
    latency = measure_latency(candidate, reference, reference_median_ms=4.0, clocks=bench.clocks)
    assert latency.median_ms == pytest.approx(1.0, rel=0.01)
    assert latency.disturbed_blocks == 0


@pytest.mark.parametrize("slowness", [0.5, 2.0])
def test_another_machine_is_another_scale(slowness: float) -> None:
    """Far from its stored median, the reference says how fast this machine is."""
    bench = Bench()
    candidate, reference = bench.session("c", 0.001 * slowness), bench.session("r", 0.004 * slowness)
    latency = measure_latency(candidate, reference, reference_median_ms=4.0, clocks=bench.clocks)
    assert latency.median_ms == pytest.approx(1.0)
    assert latency.raw_median_ms == pytest.approx(slowness)
    assert latency.settled


def test_a_machine_that_gets_slower_is_told() -> None:
    """A trend of the reference over the rounds is noticed; it does not move the ratio."""
    bench = Bench(noise=lognormal(0.03), drift=0.5)
    rules = exactly(50)
    candidate, reference = bench.session("c", 0.001), bench.session("r", 0.002)
    latency = measure_latency(candidate, reference, protocol=rules, clocks=bench.clocks)
    assert latency.drifted
    assert latency.ratio == pytest.approx(0.5, rel=0.03)


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
