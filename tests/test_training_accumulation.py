"""Accumulation equals summing the gradients of a window and dividing once, to the bit."""

from collections.abc import Iterable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import Parameter

from beats_search.training.accumulation import Accumulator
from beats_search.training.optimizers import Adamw, Sgd

STEPS = 60
OPTIMIZERS = [Sgd(), Sgd(momentum=0.9, weight_decay=5e-4), Adamw(weight_decay=1e-2)]


def network() -> nn.Module:
    """Return a small network, always with the same random weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def loss(model: nn.Module, step: int) -> Tensor:
    """Return the loss of the micro-batch of that number."""
    generator = torch.Generator().manual_seed(step)
    inputs, labels = torch.randn(4, 5, generator=generator), torch.randint(0, 3, (4,), generator=generator)
    return nn.functional.cross_entropy(model(inputs), labels)


def weights(model: nn.Module) -> list[Tensor]:
    """Return copies of the parameters."""
    return [parameter.detach().clone() for parameter in model.parameters()]


def accumulated(settings: Sgd | Adamw, window: int, steps: int = STEPS) -> list[Tensor]:
    """Train with the accumulator, flush, and return the weights."""
    model = network()
    accumulator = Accumulator(settings.make(model.parameters(), 0.01), window)
    for step in range(steps):
        torch.autograd.backward(loss(model, step))
        accumulator.take(0.01)
    accumulator.flush(0.01)
    return weights(model)


def by_hand(settings: Sgd | Adamw, windows: Iterable[Sequence[int]]) -> list[Tensor]:
    """Sum the gradients of each window, divide once, step; return the weights."""
    model = network()
    parameters: list[Parameter] = list(model.parameters())
    optimizer = settings.make(parameters, 0.01)
    for window in windows:
        gradients = [torch.autograd.grad(loss(model, step), parameters) for step in window]
        for parameter, *own in zip(parameters, *gradients, strict=True):
            total = own[0].clone()
            for gradient in own[1:]:
                total += gradient
            parameter.grad = total / len(own)
        optimizer.step()
    return weights(model)


def equal(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    """Tell whether all weights are equal to the bit."""
    return all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("settings", OPTIMIZERS)
@pytest.mark.parametrize("window", [2, 3, 4, 5])
def test_a_window_is_summed_and_divided_once(settings: Sgd | Adamw, window: int) -> None:
    """A window of K is bit-identical to the sum of K gradients divided by K."""
    windows = torch.arange(STEPS).split(window)  # type: ignore[no-untyped-call]  # torch has not annotated it
    assert equal(accumulated(settings, window), by_hand(settings, [part.tolist() for part in windows]))


@pytest.mark.parametrize("settings", OPTIMIZERS)
def test_a_window_of_one_is_plain_training(settings: Sgd | Adamw) -> None:
    """With one micro-batch per window nothing is accumulated, to the bit."""
    model = network()
    optimizer = settings.make(model.parameters(), 0.01)
    for step in range(STEPS):
        optimizer.zero_grad()
        torch.autograd.backward(loss(model, step))
        optimizer.step()
    assert equal(accumulated(settings, 1), weights(model))


def test_an_unfinished_window_is_divided_by_what_is_in_it() -> None:
    """Seven micro-batches in windows of five are one window of five and one of two."""
    assert equal(accumulated(Sgd(), 5, steps=7), by_hand(Sgd(), [range(5), range(5, 7)]))


def test_every_gradient_is_stepped_with_exactly_once() -> None:
    """With SGD and gradients that do not depend on the weights, the sum of all steps is that of the window means."""
    weight = Parameter(torch.zeros(1))
    accumulator = Accumulator(Sgd().make([weight], 1.0), 4)
    for gradient in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0):
        torch.autograd.backward((weight * gradient).sum())
        accumulator.take(1.0)
    accumulator.flush(1.0)
    assert -weight.item() == (1 + 2 + 4 + 8) / 4 + (16 + 32) / 2


def test_a_step_is_told() -> None:
    """`take` returns whether the window was full, `flush` whether anything was left; never twice."""
    weight = Parameter(torch.ones(1))
    accumulator = Accumulator(Sgd().make([weight], 1.0), 3)
    fired = []
    for _ in range(5):
        torch.autograd.backward(weight.sum())
        fired.append(accumulator.take(1.0))
    assert fired == [False, False, True, False, False]
    assert [accumulator.flush(1.0), accumulator.flush(1.0)] == [True, False]


def test_a_step_is_taken_at_the_rate_of_its_last_micro_batch() -> None:
    """The learning rate is the one handed over when the window fills."""
    weight = Parameter(torch.zeros(1))
    accumulator = Accumulator(Sgd().make([weight], 1.0), 2)
    for lr in (100.0, 0.25):
        torch.autograd.backward(weight.sum())
        accumulator.take(lr)
    assert weight.item() == -0.25


def test_parameters_without_gradient_are_left_alone() -> None:
    """A parameter that the loss does not use keeps its value."""
    used, idle = Parameter(torch.zeros(1)), Parameter(torch.ones(1))
    accumulator = Accumulator(Sgd().make([used, idle], 1.0), 2)
    for _ in range(2):
        torch.autograd.backward(used.sum())
        accumulator.take(1.0)
    assert [used.item(), idle.item()] == [-1, 1]
