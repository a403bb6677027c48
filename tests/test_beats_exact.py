"""The Beats method is plain training, accumulation and a virtual iterate, exactly where theory says so."""

import copy
from collections.abc import Sequence

import pytest
import torch
from beats_toys import OPTIMIZERS, STEPS, Handed, Make, Told, batch, equal, feed, gradient_of, network, train, weights
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam

from beats_search.records.part import Part
from beats_search.records.plan import AccumulationPlan, TrainingPlan, TrialPlan
from beats_search.training.accumulation import Beats

DYADIC = st.integers(-64, 64).map(lambda value: value / 8)
"""Fractions whose sums are exact in float32."""

STREAM = st.lists(st.lists(DYADIC, min_size=5, max_size=5), min_size=1, max_size=20)
"""Micro-gradients of two regions, of 2 and 3 entries."""


def split(entries: Sequence[float]) -> list[Tensor]:
    """Return the micro-gradient of each of two regions."""
    return [torch.tensor(entries[:2]), torch.tensor(entries[2:])]


def plain(make: Make) -> list[Tensor]:
    """Return the weights after plain training, as torch's users write it."""
    model = network()
    optimizer = make(model.parameters())
    for step in range(STEPS):
        inputs, labels = batch(step)
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]  # torch's
        optimizer.step()
    return weights(model)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
@pytest.mark.parametrize("method", [{"trigger": 0.0, "window": 8}, {"window": 1}, {"window": 8, "trigger": 1.0}])
@pytest.mark.parametrize("scope", ["region", "global"])
def test_without_a_wait_it_is_plain_training(make: Make, method: dict[str, float], scope: str) -> None:
    """A trigger of at most 1, or a window of 1, is bit-identical to the optimizer alone, dropout and norms included."""
    model = network()
    train(Beats(make(model.parameters()), model, scope=scope, **method), model, range(STEPS))  # type: ignore[arg-type]  # from a dict
    assert equal(weights(model), plain(make))


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
@pytest.mark.parametrize("window", [2, 3, 4, 5])
def test_without_a_trigger_it_sums_a_window_and_divides_once(make: Make, window: int) -> None:
    """Windows of K are bit-identical to summing K gradients and dividing once; the last window is flushed."""
    ours, theirs = network(), network()
    beats = Beats(make(ours.parameters()), ours, window=window)
    torch.manual_seed(1)
    train(beats, ours, range(STEPS - 1))
    beats.flush()
    optimizer = make(theirs.parameters())
    torch.manual_seed(1)
    for steps in torch.split(torch.arange(STEPS - 1), window):
        first, *others = [gradient_of(theirs, step) for step in steps.tolist()]
        for index, parameter in enumerate(theirs.parameters()):
            parameter.grad = first[index]
            for other in others:
                parameter.grad = parameter.grad + other[index]
            parameter.grad = parameter.grad / len(steps) if others else parameter.grad
        optimizer.step()
    assert equal(weights(ours), weights(theirs))


@pytest.mark.parametrize("window", [1, 4])
def test_no_head_is_made_without_local_errors(window: int) -> None:
    """At a local error of 0 the random stream and the optimizer's groups stay untouched."""
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    Beats(optimizer, model, window=window, trigger=1.5)
    assert torch.equal(torch.rand(1), expected)
    assert len(optimizer.param_groups) == 1


@given(
    stream=STREAM,
    trigger=st.sampled_from([0.0, 1.2, 2.0, 3.5]) | st.just("never"),
    window=st.integers(1, 6),
    scope=st.sampled_from(["region", "global"]),
    top_k=st.sampled_from([0.3, 0.5, 1.0]),
)
def test_no_gradient_is_lost(stream: list[list[float]], trigger: float, window: int, scope: str, top_k: float) -> None:
    """What was handed on and what is still held add up to all micro-gradients, exactly, whatever fires when."""
    told = Told([2, 3])
    handed = Handed(told)
    settings = {"trigger": trigger, "window": window, "scope": scope, "top_k": top_k, "mode": "sum"}
    beats = Beats(handed.optimizer, told, **settings)  # type: ignore[arg-type]  # from a dict
    for entries in stream:
        feed(beats, told, split(entries))
    for region, total in enumerate(split(torch.tensor(stream).sum(0).tolist())):
        window_now = beats._windows[region]
        held = [tensor for tensor in (*window_now.total, *window_now.memory) if tensor is not None]
        assert torch.equal(
            sum([*handed.of(region), *(each.flatten() for each in held)], torch.zeros(len(total))), total
        )


def test_losing_the_residual_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: a compressor that forgets what it did not hand on breaks the balance."""
    told = Told([4])
    handed = Handed(told)
    beats = Beats(handed.optimizer, told, top_k=0.25, mode="sum")
    monkeypatch.setattr(type(beats._windows[0]), "memory", property(lambda _: [], lambda *_: None), raising=False)
    for _ in range(4):
        feed(beats, told, [torch.tensor([4.0, 3.0, 2.0, 1.0])])
    assert not torch.equal(sum(handed.of(0), torch.zeros(4)), torch.tensor([16.0, 12.0, 8.0, 4.0]))


def test_a_mean_is_the_sum_divided_by_its_count() -> None:
    """In mean mode a fire hands on A/n, in sum mode A."""
    for mode, expected in (("mean", 2.0), ("sum", 6.0)):
        told = Told([1])
        handed = Handed(told)
        beats = Beats(handed.optimizer, told, window=3, mode=mode)  # type: ignore[arg-type]  # from a tuple
        for value in (1.0, 2.0, 3.0):
            feed(beats, told, [torch.tensor([value])])
        assert handed.of(0) == [torch.tensor([expected])]


@given(stream=STREAM, trigger=st.sampled_from([1.2, 1.6, 2.5]) | st.just("never"), window=st.integers(1, 6))
@settings(max_examples=40)
def test_the_virtual_iterate_moves_as_sgd(stream: list[list[float]], trigger: float, window: int) -> None:
    """θ - ηA equals SGD fed the same gradients, whatever the trigger does (float64, sums, α = 0)."""
    told = Told([2, 3], torch.float64)
    beats = Beats(SGD(told.parameters(), lr=0.1), told, trigger=trigger, window=window, mode="sum")
    plain_sgd = [torch.zeros(2, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)]
    for entries in stream:
        gradients = [part.double() for part in split(entries)]
        feed(beats, told, gradients)
        for weight, gradient, vector, accumulated in zip(
            plain_sgd, gradients, told.vectors.parameters(), beats._windows, strict=True
        ):
            weight.sub_(0.1 * gradient)
            held = accumulated.total[0] if accumulated.total else None
            virtual = vector.detach() - (0.0 if held is None else 0.1 * held)
            torch.testing.assert_close(virtual.flatten(), weight, rtol=1e-12, atol=1e-12)


RESUMED: dict[str, dict[str, object]] = {
    "trigger": {"window": 6, "trigger": 1.4},
    "local errors": {"window": 4, "trigger": 1.3, "local_error": 0.4, "local_scale": "norm"},
    "compressor": {"window": 3, "mode": "sum", "top_k": 0.2},
}


@pytest.mark.parametrize("method", RESUMED.values(), ids=RESUMED.keys())
@pytest.mark.parametrize("stop", [7, 20])
def test_it_resumes_in_the_middle_of_a_window(method: dict[str, object], stop: int) -> None:
    """Saved and loaded between two micro-batches, in the middle of a window, training goes on bit-identically."""
    through = network()
    beats = Beats(Adam(through.parameters()), through, **method)  # type: ignore[arg-type]  # from a dict
    train(beats, through, range(stop))
    assert any(region.staleness for region in beats.regions)
    saved = copy.deepcopy(through.state_dict()), beats.state_dict(), torch.get_rng_state()
    train(beats, through, range(stop, 30))
    resumed = network()
    resumed.load_state_dict(saved[0])
    other = Beats(Adam(resumed.parameters()), resumed, **method)  # type: ignore[arg-type]  # from a dict
    other.load_state_dict(saved[1])
    torch.set_rng_state(saved[2])
    train(other, resumed, range(stop, 30))
    assert equal(weights(resumed), weights(through))
    assert other.regions == beats.regions


def test_a_state_survives_a_file(tmp_path: "pytest.TempPathFactory") -> None:
    """A state is plain enough for torch.load with weights_only."""
    model = network()
    beats = Beats(Adam(model.parameters()), model, window=4, local_error=0.3)
    train(beats, model, range(6))
    file = f"{tmp_path}/state.pt"
    torch.save(beats.state_dict(), file)
    other = Beats(Adam(model.parameters()), model, window=4, local_error=0.3)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert other.regions == beats.regions


def test_a_state_of_another_network_is_refused() -> None:
    """Regions of a state that are not the model's are told, not mixed up."""
    model, other = network(), nn.Sequential(nn.Linear(6, 3))
    state = Beats(SGD(other.parameters()), other).state_dict()
    with pytest.raises(ValueError, match="this state is of the regions"):
        Beats(SGD(model.parameters()), model).load_state_dict(state)


METHODS = st.fixed_dictionaries(
    {
        "window": st.sampled_from([1, 2, 4]),
        "trigger": st.sampled_from([0.0, 1.0, 1.3]) | st.just("never"),
        "local_error": st.sampled_from([0.0, 0.5]),
        "scope": st.sampled_from(["region", "global"]),
        "mode": st.sampled_from(["mean", "sum"]),
        "local_scale": st.sampled_from(["none", "norm"]),
    }
)


@given(method=METHODS)
@settings(max_examples=60)
def test_what_has_no_effect_is_what_a_plan_says_has_none(method: dict[str, object]) -> None:
    """A plan and its `effective` form train the same weights, to the bit, and have one fingerprint."""
    plan = AccumulationPlan(**method)  # type: ignore[arg-type]  # from a dict
    found = []
    for each in (plan, plan.effective()):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        same = {name: getattr(each, name) for name in method}
        beats = Beats(SGD(model.parameters(), lr=0.1), model, **same)
        train(beats, model, range(9))
        beats.flush()
        found.append(weights(model))
    assert equal(*found)
    assert plan.effective().effective() == plan.effective()


def test_plans_that_train_alike_have_one_fingerprint() -> None:
    """A knob without an effect makes no new plan; one with an effect does."""
    plain = fingerprint()
    assert fingerprint(trigger=2.0, scope="global", anneal=0.5) == plain
    assert fingerprint(window=4, scope="global") == fingerprint(window=4)
    assert fingerprint(window=4, trigger=1.0) == plain
    assert fingerprint(window=4, mode="sum") != fingerprint(window=4)
    assert fingerprint(local_error=0.5, anneal=0.5) != fingerprint(local_error=0.5)
    assert fingerprint(window=4, trigger=1.5, scope="global") != fingerprint(window=4, trigger=1.5)


def fingerprint(**method: object) -> str:
    """Return the fingerprint of a plan that differs from others in its accumulation only."""
    training = TrainingPlan(epochs=1, accumulation=AccumulationPlan(**method))  # type: ignore[arg-type]  # from words
    return TrialPlan(dataset=Part(name="digits"), model=Part(name="mlp"), training=training).fingerprint()
