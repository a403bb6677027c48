"""Optimizers and schedules equal torch's own; their settings refuse nonsense."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn, optim
from torch.nn import Parameter
from torch.optim import lr_scheduler

from beats_search import plugins
from beats_search.space.draw import Replay, draw
from beats_search.space.schema import read_space
from beats_search.training.optimizers import Adam, Adamw, Sgd
from beats_search.training.schedules import Constant, Cosine, Milestones, OneCycle, Step

Optimizer = Sgd | Adam | Adamw
Schedule = Constant | Step | Milestones | Cosine | OneCycle


def trained(model: nn.Module, optimizer: optim.Optimizer) -> list[Tensor]:
    """Take 20 steps on fixed data; return the weights."""
    generator = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(8, 2, 6, 6, generator=generator), torch.arange(8) % 3
    for _ in range(20):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(inputs), labels))
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


def network() -> nn.Module:
    """Return a small convolutional network, always with the same random weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Sgd(), lambda weights: optim.SGD(weights, lr=0.1)),
        (
            Sgd(momentum=0.9, weight_decay=1e-3, nesterov=True),
            lambda weights: optim.SGD(weights, lr=0.1, momentum=0.9, weight_decay=1e-3, nesterov=True),
        ),
        (
            Adam(beta1=0.8, beta2=0.99, weight_decay=1e-3),
            lambda weights: optim.Adam(weights, lr=0.1, betas=(0.8, 0.99), weight_decay=1e-3),
        ),
        (
            Adamw(beta1=0.8, weight_decay=0.1),
            lambda weights: optim.AdamW(weights, lr=0.1, betas=(0.8, 0.999), weight_decay=0.1),
        ),
    ],
)
def test_optimizers_are_those_of_torch(ours: Optimizer, theirs: Callable[[Any], optim.Optimizer]) -> None:
    """The fused kernels over weights with channels last compute what torch's plain loop computes."""
    model, reference = network().to(memory_format=torch.channels_last), network()
    steps = trained(model, ours.make(model.parameters(), 0.1)), trained(reference, theirs(reference.parameters()))
    for one, other in zip(*steps, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_optimizers_and_schedules_are_on_their_shelves() -> None:
    """Users write the names in snake case."""
    assert plugins.names("optimizers") == ("adam", "adamw", "sgd")
    assert plugins.names("schedules") == ("constant", "cosine", "milestones", "one_cycle", "step")


def factors(schedule: Schedule, steps_per_epoch: int, epochs: int) -> list[float]:
    """Return the factor of every micro-batch."""
    return [schedule.factor(step, steps_per_epoch, epochs) for step in range(steps_per_epoch * epochs)]


def torch_factors(make: Callable[[optim.Optimizer], lr_scheduler.LRScheduler], steps: int) -> list[float]:
    """Return the learning rate of every micro-batch under one of torch's schedulers, from 1."""
    optimizer = optim.SGD([Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SequentialLR warns of a deprecated call of its own
            scheduler.step()
    return rates


@given(
    steps_per_epoch=st.integers(1, 9), epochs=st.integers(1, 7), step_epochs=st.integers(1, 4), gamma=st.floats(0.1, 1)
)
def test_step_is_torch_step_lr(steps_per_epoch: int, epochs: int, step_epochs: int, gamma: float) -> None:
    """The rate falls by gamma at the epochs at which torch's StepLR lets it fall."""
    ours = factors(Step(step_epochs=step_epochs, gamma=gamma), steps_per_epoch, epochs)
    size = step_epochs * steps_per_epoch
    theirs = torch_factors(lambda opt: lr_scheduler.StepLR(opt, step_size=size, gamma=gamma), len(ours))
    assert ours == pytest.approx(theirs)


@given(
    steps_per_epoch=st.integers(1, 9),
    epochs=st.integers(1, 7),
    milestones=st.sets(st.integers(1, 8), min_size=1, max_size=4),
    gamma=st.floats(0.1, 1),
)
def test_milestones_is_torch_multi_step_lr(
    steps_per_epoch: int, epochs: int, milestones: set[int], gamma: float
) -> None:
    """The rate falls by gamma after the epochs after which torch's MultiStepLR lets it fall."""
    ours = factors(Milestones(epochs=tuple(sorted(milestones)), gamma=gamma), steps_per_epoch, epochs)
    theirs = torch_factors(lambda opt: lr_scheduler.MultiStepLR(opt, sorted(milestones), gamma=gamma), epochs)
    assert ours == pytest.approx([rate for rate in theirs for _ in range(steps_per_epoch)])


def test_milestones_are_written_as_a_list() -> None:
    """In a space file the epochs are a list of whole numbers, and the factor may be a knob."""
    text = """
name: written
dataset: digits
model: mlp
training:
  epochs: 100
  schedule: {name: milestones, epochs: [50, 75, 89, 94], gamma: {choice: [0.25, 0.5]}}
"""
    schedule = draw(
        read_space(text, file=Path("written.yaml")), Replay({"training.schedule.gamma": 0.25})
    ).training.schedule
    assert plugins.make("schedules", schedule) == Milestones(epochs=(50, 75, 89, 94), gamma=0.25)


@given(steps_per_epoch=st.integers(1, 9), epochs=st.integers(1, 7))
def test_cosine_is_torch_cosine_annealing(steps_per_epoch: int, epochs: int) -> None:
    """The rate follows torch's CosineAnnealingLR over all micro-batches."""
    ours = factors(Cosine(), steps_per_epoch, epochs)
    theirs = torch_factors(lambda opt: lr_scheduler.CosineAnnealingLR(opt, T_max=len(ours)), len(ours))
    assert ours == pytest.approx(theirs, abs=1e-9)


@given(steps_per_epoch=st.integers(2, 9), epochs=st.integers(1, 7), rise=st.floats(0.05, 1))
def test_one_cycle_is_torch_one_cycle_lr(steps_per_epoch: int, epochs: int, rise: float) -> None:
    """The rate follows torch's OneCycleLR with its defaults, whatever the share of the rise."""
    steps = steps_per_epoch * epochs

    def reference(opt: optim.Optimizer) -> lr_scheduler.LRScheduler:
        return lr_scheduler.OneCycleLR(opt, max_lr=1.0, total_steps=steps, pct_start=rise, cycle_momentum=False)

    try:
        theirs = torch_factors(reference, steps)
    except ZeroDivisionError:  # torch divides by a rise of exactly one micro-batch
        return
    assert factors(OneCycle(rise=rise), steps_per_epoch, epochs) == pytest.approx(theirs, abs=1e-9)


def test_one_cycle_defaults_are_those_of_torch() -> None:
    """Without settings, the schedule is torch's OneCycleLR."""
    theirs = torch_factors(lambda opt: lr_scheduler.OneCycleLR(opt, 1.0, total_steps=40, cycle_momentum=False), 40)
    assert factors(OneCycle(), 8, 5) == pytest.approx(theirs)


@given(rise=st.sampled_from([0.0, 0.25, 0.5, 1.0]), steps=st.integers(1, 8))
def test_one_cycle_has_a_factor_at_every_length(rise: float, steps: int) -> None:
    """Trainings of a few micro-batches, too, have factors above 0 and at most 1."""
    assert all(0 < factor <= 1 for factor in factors(OneCycle(rise=rise), steps, 1))


@pytest.mark.parametrize(
    "schedule",
    [
        Constant(warmup_epochs=2),
        Step(step_epochs=99, warmup_epochs=2),
        Milestones(epochs=(99,), warmup_epochs=2),
    ],
)
def test_warm_up_is_torch_linear_lr(schedule: Schedule) -> None:
    """The rate climbs in equal steps to the full one, which the last micro-batch of the warm-up has."""
    theirs = torch_factors(lambda opt: lr_scheduler.LinearLR(opt, start_factor=1 / 10, total_iters=9), 40)
    assert factors(schedule, 5, 8) == pytest.approx(theirs)


def test_cosine_begins_where_its_warm_up_ends() -> None:
    """The half cosine takes the micro-batches that the warm-up has left."""

    def reference(opt: optim.Optimizer) -> lr_scheduler.LRScheduler:
        climb = lr_scheduler.LinearLR(opt, start_factor=1 / 10, total_iters=9)
        fall = lr_scheduler.CosineAnnealingLR(opt, T_max=30)
        return lr_scheduler.SequentialLR(opt, [climb, fall], milestones=[10])

    assert factors(Cosine(warmup_epochs=2), 5, 8) == pytest.approx(torch_factors(reference, 40), abs=1e-9)


@given(warmup=st.floats(0, 10), steps_per_epoch=st.integers(1, 9), epochs=st.integers(1, 7))
def test_factors_are_between_zero_and_one(warmup: float, steps_per_epoch: int, epochs: int) -> None:
    """The learning rate of the plan is the highest of the training, however long the warm-up."""
    for schedule in (
        Constant(warmup_epochs=warmup),
        Step(step_epochs=2, warmup_epochs=warmup),
        Milestones(epochs=(1, 3), warmup_epochs=warmup),
        Cosine(warmup_epochs=warmup),
    ):
        assert all(0 < factor <= 1 for factor in factors(schedule, steps_per_epoch, epochs))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sgd(momentum=1.0), r"sgd.momentum needs to be at least 0 and below 1, got 1.0"),
        (lambda: Sgd(weight_decay=-1.0), r"sgd.weight_decay needs to be at least 0, got -1.0"),
        (lambda: Sgd(nesterov=True), r"sgd.nesterov needs momentum above 0, got momentum=0"),
        (lambda: Adam(beta1=1.5), r"adam.beta1 .* got 1.5"),
        (lambda: Adam(beta2=-0.1), r"adam.beta2 .* got -0.1"),
        (lambda: Adam(weight_decay=math.nan), r"adam.weight_decay .* got nan"),
        (lambda: Adamw(beta1=1.0), r"adamw.beta1 .* got 1.0"),
        (lambda: Adamw(beta2=2.0), r"adamw.beta2 .* got 2.0"),
        (lambda: Adamw(weight_decay=-0.5), r"adamw.weight_decay .* got -0.5"),
        (lambda: Constant(warmup_epochs=-1), r"constant.warmup_epochs needs to be at least 0, got -1"),
        (lambda: Cosine(warmup_epochs=-1), r"cosine.warmup_epochs .* got -1"),
        (lambda: Step(step_epochs=1, warmup_epochs=-1), r"step.warmup_epochs .* got -1"),
        (lambda: Step(step_epochs=0), r"step.step_epochs needs to be at least 1, got 0"),
        (lambda: Step(step_epochs=1, gamma=0.0), r"step.gamma needs to be above 0 and at most 1, got 0.0"),
        (lambda: Milestones(epochs=()), r"milestones.epochs needs ascending whole numbers of at least 1, got \[\]"),
        (lambda: Milestones(epochs=(0, 2)), r"milestones.epochs .* got \[0, 2\]"),
        (lambda: Milestones(epochs=(2, 2)), r"milestones.epochs .* got \[2, 2\]"),
        (lambda: Milestones(epochs=(3, 2)), r"milestones.epochs .* got \[3, 2\]"),
        (lambda: Milestones(epochs=(1,), gamma=1.5), r"milestones.gamma needs to be above 0 and at most 1, got 1.5"),
        (lambda: Milestones(epochs=(1,), warmup_epochs=-1), r"milestones.warmup_epochs .* got -1"),
        (lambda: OneCycle(rise=1.5), r"one_cycle.rise needs to be between 0 and 1, got 1.5"),
        (lambda: OneCycle(start_divisor=0.5), r"one_cycle needs start_divisor >= 1 .* got start_divisor=0.5"),
        (lambda: OneCycle(end_divisor=0.0), r"end_divisor=0.0"),
    ],
)
def test_settings_without_sense_are_refused(make: Callable[[], object], message: str) -> None:
    """The error names the setting, states the rule, then the value."""
    with pytest.raises(ValueError, match=message):
        make()
