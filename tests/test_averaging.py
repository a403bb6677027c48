"""The moving average of the weights equals its definition and disturbs nothing."""

from copy import deepcopy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from beats_search.models.resnet import Resnet
from beats_search.training.averaging import WeightAverage


def network() -> nn.Module:
    """Return a small network in float64, with batch norms, always with the same random weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).double()


def train(model: nn.Module, steps: int) -> list[dict[str, Tensor]]:
    """Take steps on random data; return what the model held before and after each, without touching the average."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    held = [deepcopy(dict(model.state_dict()))]
    for _ in range(steps):
        inputs = torch.randn(8, 4, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(inputs), torch.arange(8) % 3))
        optimizer.step()
        held.append(deepcopy(dict(model.state_dict())))
    return held


def averaged(model: nn.Module, history: list[dict[str, Tensor]], decay: float) -> nn.Module:
    """Return the average after the model has taken on what it held after each step."""
    average = WeightAverage(model, decay)
    for held in history[1:]:
        model.load_state_dict(held)
        average.update()
    return average.model


@given(decay=st.floats(0.01, 0.9999), steps=st.integers(1, 25))
def test_the_average_is_its_recursion(decay: float, steps: int) -> None:
    """Number by number: the first weights, then keep·average + (1 - keep)·weights with keep warmed up."""
    model = network()
    history = train(model, steps)
    got = averaged(model, history, decay).state_dict()
    for name in ("0.weight", "1.weight", "1.running_mean", "1.running_var", "3.bias"):
        expected = [float(number) for number in history[1][name].flatten()]
        for update, held in enumerate(history[2:], start=1):
            keep = min(decay, (1 + update) / (10 + update))
            numbers = held[name].flatten().tolist()
            expected = [keep * old + (1 - keep) * new for old, new in zip(expected, numbers, strict=True)]
        assert got[name].flatten().tolist() == pytest.approx(expected, rel=1e-12, abs=1e-14)


def test_counters_are_copied() -> None:
    """A buffer of whole numbers, such as how many batches a norm has seen, is the trained model's own."""
    model = network()
    history = train(model, 7)
    assert averaged(model, history, 0.999).state_dict()["1.num_batches_tracked"].item() == 7


def test_untrained_weights_have_no_share() -> None:
    """After the first update the average is what the model held then."""
    model = network()
    history = train(model, 1)
    got = averaged(model, history, 0.999).state_dict()
    assert all(torch.equal(got[name], value) for name, value in history[1].items())


def test_the_trained_model_is_untouched() -> None:
    """Training with an average beside it gives the weights that it gives without, to the bit."""
    beside, alone = network(), network()
    average = WeightAverage(beside, 0.9)
    for held in train(alone, 5)[1:]:
        beside.load_state_dict(held)
        average.update()
        assert all(torch.equal(value, held[name]) for name, value in beside.state_dict().items())
    assert not {id(weight) for weight in average.model.parameters()} & {id(weight) for weight in beside.parameters()}


def test_the_averaged_model_has_the_names_of_the_trained_one() -> None:
    """Nothing is wrapped: classes, names and gradient flags are those of the trained model."""
    model = Resnet(width=4).build((1, 8, 8), 3)
    average = WeightAverage(model, 0.9).model
    assert [(name, type(part)) for name, part in average.named_modules()] == [
        (name, type(part)) for name, part in model.named_modules()
    ]
    assert list(average.state_dict()) == list(model.state_dict())
    assert all(weight.requires_grad for weight in average.parameters())


def test_an_average_is_steadier_than_the_weights() -> None:
    """Of weights that jump about a mean, the average keeps close to the mean."""
    model = nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, 0.95)
    for step in range(200):
        nn.init.constant_(model.weight, 1.0 + (-1) ** step)
        average.update()
    assert average.model.state_dict()["weight"].item() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1, float("nan")])
def test_decays_that_average_nothing_are_refused(decay: float) -> None:
    """At 0 there is no average, at 1 no new weight; the error states the rule, then the value."""
    with pytest.raises(ValueError, match=rf"above 0 and below 1, got {decay}"):
        WeightAverage(network(), decay)
