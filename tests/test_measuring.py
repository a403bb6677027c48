"""Measuring: intervals that cover, latencies on a clock that the test turns, honest footprints."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from beats_search.compression.quantization import quantize
from beats_search.measuring.footprint import macs, parameters
from beats_search.measuring.latency import Protocol, measure_latency
from beats_search.measuring.machine import describe_machine
from beats_search.measuring.quality import accuracy, accuracy_interval, check_parity
from beats_search.records.errors import ParityError


@dataclass
class Bench:
    """A machine whose calls take as long as the test says; each session has a pace of its own."""

    noise: float = 0.0
    now: float = 0.0
    opened: list[str] = field(default_factory=list)
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))

    def clock(self) -> float:
        return self.now

    def session(self, name: str, seconds: float) -> Callable[[], Callable[[], None]]:
        def open_session() -> Callable[[], None]:
            self.opened.append(name)
            pace = seconds * math.exp(self.noise * self.random.standard_normal())

            def call() -> None:
                self.now += pace

            return call

        return open_session


def test_latency_of_a_quiet_machine_is_exact() -> None:
    """Without noise the ratio, the scaled median and the ends of the interval are the true ones."""
    bench = Bench()
    latency = measure_latency(
        bench.session("candidate", 0.001),
        bench.session("reference", 0.004),
        reference_median_ms=8.0,
        clock=bench.clock,
    )
    assert latency.ratio == pytest.approx(0.25)
    assert latency.median_ms == pytest.approx(2.0)
    assert latency.raw_median_ms == pytest.approx(1.0)
    assert (latency.interval_ms.low, latency.interval_ms.high) == pytest.approx((2.0, 2.0))
    assert latency.settled


def test_reference_without_a_stored_median_sets_the_scale() -> None:
    """The first measurement is on the scale of the reference as it was timed beside it."""
    bench = Bench()
    latency = measure_latency(bench.session("a", 0.002), bench.session("b", 0.004), clock=bench.clock)
    assert latency.median_ms == pytest.approx(2.0)


def test_every_block_opens_a_fresh_session_beside_the_reference() -> None:
    """Candidate and reference open equally often, in both orders."""
    bench = Bench(noise=0.1)
    latency = measure_latency(bench.session("c", 0.001), bench.session("r", 0.001), clock=bench.clock)
    rounds = list(zip(bench.opened[::2], bench.opened[1::2], strict=True))
    assert len(rounds) == latency.blocks
    assert set(rounds) == {("c", "r"), ("r", "c")}


def test_timing_ends_when_the_budget_is_spent() -> None:
    """A noisy machine is timed until the budget is gone, and the result says that it did not settle."""
    bench = Bench(noise=0.3)
    rules = Protocol(half_width=0.001, budget_s=1.0)
    latency = measure_latency(bench.session("c", 0.001), bench.session("r", 0.001), protocol=rules, clock=bench.clock)
    assert not latency.settled
    assert 1.0 <= bench.now < 1.2


def test_a_slow_call_still_gets_its_rounds() -> None:
    """A call longer than a block is made the least number of times, in the least number of rounds."""
    bench = Bench()
    rules = Protocol(min_rounds=5, min_calls=2, budget_s=0.1)
    latency = measure_latency(bench.session("c", 1.0), bench.session("r", 1.0), protocol=rules, clock=bench.clock)
    assert (latency.blocks, latency.calls) == (5, 10)


@pytest.mark.parametrize("noise", [0.02, 0.05, 0.1])
def test_interval_covers_the_true_ratio(noise: float) -> None:
    """By the rules as shipped, about 95 % of the intervals hold the truth, whatever the noise of sessions."""
    held = 0
    for seed in range(150):
        bench = Bench(noise=noise, random=np.random.default_rng(seed))
        candidate, reference = bench.session("c", 0.002), bench.session("r", 0.004)
        latency = measure_latency(candidate, reference, clock=bench.clock, seed=seed)
        held += latency.ratio_interval.low <= 0.5 <= latency.ratio_interval.high
    assert held / 150 >= 0.9


def test_the_work_beside_the_calls_does_not_grow() -> None:
    """A block of very many fast calls costs a few microseconds a call."""
    calls = 0
    began = time.perf_counter()

    def call() -> None:
        nonlocal calls
        calls += 1

    rules = Protocol(min_rounds=3, budget_s=0.0, block_s=0.02, warmup_s=0.0)
    measure_latency(lambda: call, lambda: call, protocol=rules)
    assert (time.perf_counter() - began) / calls < 2e-5


@given(right=st.integers(0, 300), wrong=st.integers(0, 300))
@example(right=0, wrong=62)  # rounding put the low end above 0
def test_accuracy_interval_holds_the_share(right: int, wrong: int) -> None:
    """The interval of a share holds that share, lies within 0…1 and is wider for fewer trials."""
    count = right + wrong + 1
    share = right / count
    interval = accuracy_interval(share, count)
    assert 0 <= interval.low <= share <= interval.high <= 1
    wider, narrower = interval.high - interval.low, accuracy_interval(share, 4 * count)
    assert narrower.high - narrower.low < wider


def test_accuracy_counts_rows() -> None:
    """Accuracy is the share of rows whose largest logit is at the label."""
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0], [0.0, 5.0]])
    assert accuracy(logits, torch.tensor([0, 1, 1, 1])) == 0.75


def test_parity_in_float_allows_last_digits_only() -> None:
    """Float files must give the model's logits; integer files must give its decisions."""
    expected = torch.randn(100, 5)
    check_parity(expected + 1e-5, expected, exact=True)
    with pytest.raises(ParityError, match=r"differ by 0\.1"):
        check_parity(expected + 0.1, expected, exact=True)
    check_parity(expected * 1.1, expected, exact=False)
    with pytest.raises(ParityError, match="decides like the model"):
        check_parity(-expected, expected, exact=False)
    with pytest.raises(ParityError, match="not finite"):
        check_parity(expected * math.nan, expected, exact=False)


def test_macs_are_counted_as_on_paper() -> None:
    """A 3×3 convolution and a linear layer cost outputs × inputs of each output."""
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 25, 10))
    assert macs(model, torch.rand(1, 2, 5, 5)) == 25 * 4 * 2 * 9 + 100 * 10


def test_quantizing_keeps_macs_and_parameters() -> None:
    """Integer weights are as many weights, and products of integers are as many products."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10)).eval()
    images = torch.rand(8, 1, 8, 8)
    quantized = quantize(model, images)
    assert macs(quantized, images[:1]) == macs(model, images[:1])
    assert parameters(quantized) == parameters(model)


def test_machine_is_described_from_what_the_kernel_says(tmp_path: Path) -> None:
    """Processor and instructions are read from the kernel's text, versions from the installation."""
    (tmp_path / "cpuinfo").write_text("model name\t: Toy 9000\nflags\t\t: fpu avx2 avx512_vnni\n")
    facts = describe_machine(tmp_path / "cpuinfo")
    assert facts["processor"] == "Toy 9000"
    assert facts["instructions"] == "avx2, avx512_vnni"
    assert facts["torch"] == torch.__version__.partition("+")[0] or facts["torch"] == torch.__version__
