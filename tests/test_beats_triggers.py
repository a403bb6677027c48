"""Triggers: when a region fires, what agreement is, and what is not allowed to enter a window."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from beats_toys import Handed, Told, equal, feed, network, train, weights
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import LBFGS, SGD

from beats_search.records.errors import DivergedError
from beats_search.records.part import Part
from beats_search.records.plan import AccumulationPlan, TrainingPlan
from beats_search.tensors.data import DataBundle
from beats_search.training.accumulation import Beats
from beats_search.training.fit import fit
from beats_search.training.triggers import agreements
from beats_search.training.windows import Window

NUMBERS = st.floats(-100, 100, width=32).filter(lambda value: not 0 < abs(value) < 1e-3)
STREAM = st.lists(st.lists(NUMBERS, min_size=3, max_size=3), min_size=1, max_size=16)


def told_alone(window: int, trigger: float | str = "never", **method: object) -> tuple[Told, Handed, Beats]:
    """Return a region of three numbers, what it is handed, and its method."""
    told = Told([3])
    handed = Handed(told)
    return told, handed, Beats(handed.optimizer, told, window=window, trigger=trigger, **method)  # type: ignore[arg-type]  # from words


@given(stream=STREAM)
def test_agreement_stays_within_its_bounds(stream: list[list[float]]) -> None:
    """0 <= ρ <= n at any time, and ρ = 1 for a single micro-gradient that is not zero."""
    told, _, beats = told_alone(len(stream) + 1)
    for count, gradient in enumerate(stream, start=1):
        feed(beats, told, [torch.tensor(gradient)])
        (region,) = beats.regions
        assert region.staleness == count
        assert 0 <= region.agreement <= count
        assert count > 1 or region.agreement == 1


@given(gradient=st.lists(NUMBERS, min_size=3, max_size=3), count=st.integers(1, 9))
def test_agreement_of_equal_gradients_is_their_number(gradient: list[float], count: int) -> None:
    """ρ = n for a repeated gradient, and for gradients that are all zero."""
    told, _, beats = told_alone(10)
    for _ in range(count):
        feed(beats, told, [torch.tensor(gradient)])
    assert beats.regions[0].agreement == pytest.approx(count, rel=1e-5)


@given(stream=STREAM, power=st.integers(-20, 20))
def test_agreement_does_not_depend_on_scale(stream: list[list[float]], power: int) -> None:
    """ρ(c·g) = ρ(g): neither the learning rate nor the size of the loss moves the trigger."""
    found = []
    for scale in (1.0, 2.0**power):
        told, _, beats = told_alone(len(stream) + 1)
        for gradient in stream:
            feed(beats, told, [scale * torch.tensor(gradient)])
        found.append(beats.regions[0].agreement)
    assert found[0] == pytest.approx(found[1], rel=1e-5, abs=1e-9)


def test_agreement_is_that_of_numpy() -> None:
    """ρ is the squared length of the sum over the sum of squared lengths."""
    told, _, beats = told_alone(9)
    stream = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    for gradient in stream:
        feed(beats, told, [gradient])
    expected = stream.sum(0).square().sum() / stream.square().sum()
    assert beats.regions[0].agreement == pytest.approx(float(expected), rel=1e-5)


def test_agreement_of_noise_is_one_in_expectation() -> None:
    """Independent gradients around zero have ρ near 1 on average, whatever their number."""
    noise = torch.randn(600, 6, 10, generator=torch.Generator().manual_seed(0))
    windows = [Window() for _ in noise]
    for window, stream in zip(windows, noise, strict=True):
        for gradient in stream:
            window.add([gradient.clone()], float(gradient.square().sum()))
    found = agreements(windows, AccumulationPlan(window=9), list)
    assert sum(found) / len(found) == pytest.approx(1, abs=0.05)


@given(
    stream=st.lists(st.lists(NUMBERS, min_size=5, max_size=5), min_size=1, max_size=24),
    trigger=st.sampled_from([0.0, 1.3, 2.0, 100.0]) | st.just("never"),
    window=st.integers(1, 6),
    scope=st.sampled_from(["region", "global"]),
)
def test_no_window_outgrows_its_cap(stream: list[list[float]], trigger: float, window: int, scope: str) -> None:
    """n_r <= K always, and every region fires at least once in any K consecutive micro-steps."""
    told = Told([2, 3])
    beats = Beats(SGD(told.parameters(), lr=1.0), told, window=window, trigger=trigger, scope=scope)  # type: ignore[arg-type]  # from a strategy
    fires: list[list[int]] = []
    for entries in stream:
        feed(beats, told, [torch.tensor(entries[:2]), torch.tensor(entries[2:])])
        assert all(region.staleness < window for region in beats.regions)
        fires.append([region.fires for region in beats.regions])
    for start in range(len(fires) - window):
        assert all(late > early for early, late in zip(fires[start], fires[start + window], strict=True))


def test_without_a_cap_a_region_may_never_fire() -> None:
    """Negative control: opposite gradients never reach a trigger, so only the window ends their wait."""
    told, handed, beats = told_alone(10**6, 1.5)
    for step in range(50):
        feed(beats, told, [torch.tensor([1.0, 0.0, 0.0]) * (-1) ** step])
    assert not handed.fires
    assert beats.regions[0].staleness == 50


def test_regions_fire_at_their_own_time() -> None:
    """A region whose gradients agree fires while another, whose gradients do not, goes on waiting."""
    told = Told([1, 1])
    handed = Handed(told)
    beats = Beats(handed.optimizer, told, window=4, trigger=1.8)
    for step in range(4):
        feed(beats, told, [torch.tensor([1.0]), torch.tensor([1.0 - 2 * (step % 2)])])
    assert [len(handed.of(0)), len(handed.of(1))] == [2, 1]
    assert [region.fires for region in beats.regions] == [2, 1]
    assert beats.updates == 2


def test_in_the_global_scope_all_fire_together() -> None:
    """One ρ over all regions decides, and decides for all."""
    told = Told([1, 1])
    handed = Handed(told)
    beats = Beats(handed.optimizer, told, window=4, trigger=1.4, scope="global")
    for gradients in ([3.0, 1.0], [3.0, -1.0]):
        feed(beats, told, [torch.tensor([value]) for value in gradients])
    assert [len(handed.of(0)), len(handed.of(1))] == [1, 1]  # ρ = (36 + 0) / (9 + 1 + 9 + 1) = 1.8


@given(
    stream=st.lists(st.lists(NUMBERS, min_size=5, max_size=5), min_size=1, max_size=16),
    trigger=st.sampled_from([1.2, 2.0]),
    scope=st.sampled_from(["region", "global"]),
)
def test_the_order_of_regions_does_not_matter(stream: list[list[float]], trigger: float, scope: str) -> None:
    """Relabelling regions relabels what they are handed, and changes nothing else."""
    found: list[list[list[Tensor]]] = []
    for swapped in (False, True):
        told = Told([3, 2] if swapped else [2, 3])
        handed = Handed(told)
        beats = Beats(handed.optimizer, told, window=5, trigger=trigger, scope=scope)  # type: ignore[arg-type]  # drawn
        for entries in stream:
            pair = [torch.tensor(entries[:2]), torch.tensor(entries[2:])]
            feed(beats, told, pair[::-1] if swapped else pair)
        found.append([handed.of(1), handed.of(0)] if swapped else [handed.of(0), handed.of(1)])
    assert all(len(one) == len(other) and equal(one, other) for one, other in zip(*found, strict=True))


@given(stream=STREAM, trigger=st.sampled_from([0.0, 1.2, 1.7, 2.5]))
def test_one_region_is_the_global_scope(stream: list[list[float]], trigger: float) -> None:
    """With a single region, both scopes are the same method."""
    found = []
    for scope in ("region", "global"):
        told, handed, beats = told_alone(5, trigger, scope=scope)
        for gradient in stream:
            feed(beats, told, [torch.tensor(gradient)])
        found.append(handed.of(0))
    assert len(found[0]) == len(found[1])
    assert equal(found[0], found[1])


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_is_left_out(poison: float) -> None:
    """A, n and S stay as they were, nothing fires, and the micro-batch does not count."""
    told, handed, beats = told_alone(3)
    feed(beats, told, [torch.tensor([1.0, 2.0, 3.0])])
    before = beats._windows[0].state()
    feed(beats, told, [torch.tensor([0.0, poison, 0.0])])
    after = beats._windows[0].state()
    assert torch.equal(before.pop("total")[0], after.pop("total")[0])
    assert before == after
    assert (beats.skipped, beats.skips_in_a_row, handed.fires) == (1, 1, [])
    feed(beats, told, [torch.tensor([1.0, 0.0, 0.0])])
    assert (beats.skipped, beats.skips_in_a_row) == (1, 0)


def test_one_bad_region_spoils_the_micro_batch_for_all() -> None:
    """Regions stay in step: what is not finite anywhere enters no window."""
    told = Told([1, 1])
    beats = Beats(SGD(told.parameters(), lr=1.0), told, window=3)
    feed(beats, told, [torch.tensor([1.0]), torch.tensor([math.nan])])
    assert [region.staleness for region in beats.regions] == [0, 0]


class Bursting(nn.Module):
    """A layer whose logits are finite, and whose gradient is not from the given call on."""

    def __init__(self, after: int, *, logits: bool = False) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.calls, self.after, self.logits = 0, after, logits

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.layer(inputs.flatten(1))
        if self.training:
            self.calls += 1
            if self.calls > self.after:
                zero = outputs - outputs.detach()
                return outputs * math.inf if self.logits else outputs + zero.sqrt()  # the slope of a root at 0
        return outputs


PLAN = TrainingPlan(epochs=1, batch_size=8, optimizer=Part(name="sgd"), device="cpu", precision="fp32")


def test_training_fails_after_ten_skips_in_a_row(stripes: DataBundle) -> None:
    """Gradients that are not finite are skipped, but not for ever."""
    with pytest.raises(DivergedError, match="10 micro-batches in a row"):
        fit(Bursting(5), stripes, PLAN, seed=0)


def test_training_fails_on_a_loss_that_is_not_finite(stripes: DataBundle) -> None:
    """A single loss that is not finite ends the trial, and says where."""
    with pytest.raises(DivergedError, match="micro-batch 6 of 32"):
        fit(Bursting(5, logits=True), stripes, PLAN, seed=0)


def test_some_skips_are_counted_and_survived(stripes: DataBundle) -> None:
    """A few micro-batches in a row may be skipped; the epoch's score says how many."""
    model = Bursting(32 - 7)
    (score,) = fit(model, stripes, PLAN, seed=0).curve
    assert (score.skipped, score.updates, score.micro_batches) == (7, 25, 32)


def test_a_scaler_is_undone_before_accumulating() -> None:
    """Windows hold unscaled gradients; what overflowed is skipped, and not held against the model."""
    told, handed, beats = told_alone(2, scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))
    feed(beats, told, [torch.tensor([1.0, 2.0, 3.0])])
    assert equal(
        [tensor for tensor in beats._windows[0].total if tensor is not None], [torch.tensor([[1.0, 2.0, 3.0]])]
    )
    feed(beats, told, [torch.tensor([math.inf, 0.0, 0.0])])
    assert (beats.skipped, beats.skips_in_a_row) == (1, 0)
    assert beats._scaler is not None
    assert beats._scaler.get_scale() == 512.0
    feed(beats, told, [torch.tensor([3.0, 2.0, 1.0])])
    assert equal(handed.of(0), [torch.tensor([2.0, 2.0, 2.0])])


def test_a_scaler_covers_the_heads_as_well() -> None:
    """With powers of two as scale, training with local errors is bit-identical with and without a scaler."""
    found = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=256.0)):
        model = network()
        beats = Beats(SGD(model.parameters(), lr=0.1), model, window=3, trigger=1.3, local_error=0.4, scaler=scaler)
        train(beats, model, range(12))
        found.append(weights(model))
    assert equal(*found)


def test_what_is_handed_on_is_clipped() -> None:
    """The norm of an update is at most `clip`, over all regions that fire."""
    told = Told([1, 1])
    handed = Handed(told)
    beats = Beats(handed.optimizer, told, window=1, clip=1.0)
    feed(beats, told, [torch.tensor([3.0]), torch.tensor([4.0])])
    torch.testing.assert_close(torch.cat([handed.of(0)[0], handed.of(1)[0]]), torch.tensor([0.6, 0.8]))


def test_a_compressor_hands_on_the_largest_first() -> None:
    """Top-k sends the largest entries of what is due, and what was left comes later."""
    told, handed, beats = told_alone(1, top_k=0.34, mode="sum")
    feed(beats, told, [torch.tensor([1.0, -5.0, 4.5])])
    feed(beats, told, [torch.tensor([1.0, 0.0, 4.5])])
    assert [each.tolist() for each in handed.of(0)] == [[0.0, -5.0, 4.5], [2.0, 0.0, 4.5]]


def test_scores_tell_what_happened_since_the_last_ones() -> None:
    """An epoch's score counts the fires of that epoch, with mean agreement and mean wait."""
    told, _, beats = told_alone(2, 5.0)
    for _ in range(4):
        feed(beats, told, [torch.tensor([1.0, 0.0, 0.0])])
    (first,) = beats.scores()
    assert (first.name, first.fires, first.agreement, first.waited) == ("0", 2, 2.0, 2.0)
    (second,) = beats.scores()
    assert second.fires == 0
    assert math.isnan(second.agreement)


@pytest.mark.parametrize(
    ("method", "rule"),
    [
        ({"window": 0}, "window needs to be at least 1, got 0"),
        ({"trigger": -1.0}, "trigger needs to be never or at least 0"),
        ({"trigger": math.nan}, "trigger needs to be never or at least 0"),
        ({"trigger": "often"}, "trigger needs to be never or at least 0, got often"),
        ({"local_error": 1.5}, "local_error needs to be between 0 and 1"),
        ({"top_k": 0.5}, "top_k below 1 needs mode: sum"),
        ({"scope": "world"}, "scope needs to be region or global, got world"),
        ({"mode": "max"}, "mode needs to be mean or sum, got max"),
        ({"local_scale": "l1"}, "local_scale needs to be none or norm, got l1"),
        ({"clip": -1.0}, "clip needs to be at least 0"),
    ],
)
def test_settings_outside_their_bounds_are_refused(method: dict[str, object], rule: str) -> None:
    """Every setting states its rule and the value that broke it."""
    model = network()
    with pytest.raises(ValueError, match=rule):
        Beats(SGD(model.parameters(), lr=0.1), model, **method)  # type: ignore[arg-type]  # wrong on purpose


def test_an_optimizer_that_wants_a_closure_is_refused() -> None:
    """LBFGS evaluates the loss several times a step, which a window cannot give it."""
    model = network()
    with pytest.raises(TypeError, match="without a closure"):
        Beats(LBFGS(model.parameters()), model)


RANK = """
import sys
import torch
from torch import distributed, nn
from torch.optim import SGD
sys.path.insert(0, sys.argv[3])
from beats_toys import batch, network, weights
from beats_search.training import Beats
from beats_search.training.ranks import Ranks

rank = int(sys.argv[1])
distributed.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
model = network()
model[5].p = 0.0
beats = Beats(SGD(model.parameters(), lr=0.1), model, window=5, trigger=1.5, group=distributed.group.WORLD)
pattern = []
for step in range(40):
    inputs, labels = batch(1000 * rank + step)
    if (rank, step) == (1, 17):
        inputs[0, 0] = float("nan")
    beats.step(model(inputs), labels)
    pattern.append([region.fires for region in beats.regions])
beats.flush()
weight = next(model.parameters())
weight.grad = torch.full_like(weight, 1.0 + rank) if rank else None
Ranks(distributed.group.WORLD).average_gradients([weight])
print(float(weight.grad.mean()), pattern, beats.skipped, [each.tolist() for each in weights(model)])
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_fire_together(tmp_path: Path) -> None:
    """Ranks with different data agree on every fire, on what is skipped, and on the weights, to the bit."""
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(tmp_path / "meeting"), str(Path(__file__).parent)],
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        for rank in range(2)
    ]
    told = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert told[0] == told[1]
    assert told[0].startswith("1.0 ")  # the mean of 2 and of a gradient that one rank lacks
