"""Fit trains by the method of its plan: every setting does there what it does in a loop written by hand."""

from dataclasses import asdict, replace
from functools import partial

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional
from torch.optim import SGD

from beats_search.records.outcome import EpochScore
from beats_search.records.part import Part
from beats_search.records.plan import AccumulationPlan, TrainingPlan
from beats_search.tensors.data import DataBundle, Split
from beats_search.training.accumulation import Beats
from beats_search.training.averaging import WeightAverage
from beats_search.training.fit import _batches, fit
from beats_search.training.local_error import annealed

EPOCHS, SIZE, LR = 2, 8, 0.1
pytestmark = pytest.mark.usefixtures("one_thread")

PLAN = TrainingPlan(epochs=EPOCHS, batch_size=SIZE, optimizer=Part(name="sgd"), lr=LR, device="cpu", precision="fp32")
LOCAL = AccumulationPlan(local_error=0.6, anneal=0.5)


def rows(count: int, seed: int) -> Split:
    """Return rows of 6 numbers with labels that depend on them."""
    inputs = torch.randn(count, 6, generator=Generator().manual_seed(seed))
    return Split(inputs=inputs, labels=(inputs[:, 0] > 0).long() + (inputs[:, 1] > 0).long())


DATA = DataBundle(train=rows(60, 0), validation=rows(20, 1), test=rows(20, 2), classes=("none", "one", "both"))


def network() -> nn.Module:
    """Return three regions, one with a norm; always the same weights."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))


def by_hand(plan: TrainingPlan, seed: int) -> nn.Module:
    """Train as fit says that it does, without anything that makes it fast."""
    model, settings = network(), plan.accumulation
    average = WeightAverage(model, plan.ema) if plan.ema else None
    method = {name: value for name, value in asdict(settings).items() if name != "anneal"}
    beats = Beats(SGD(model.parameters(), lr=plan.lr), model, clip=plan.clip, **method)
    loss = partial(functional.cross_entropy, label_smoothing=plan.label_smoothing)
    random = Generator().manual_seed(seed)
    batches = [batch for _ in range(plan.epochs) for batch in _batches(len(DATA.train), SIZE, random)]
    model.train()
    for step, batch in enumerate(batches, start=1):
        beats.local_error = annealed(settings.local_error, settings.anneal, step / len(batches))
        updates = beats.updates
        beats.step(model(DATA.train.inputs[batch]), DATA.train.labels[batch], loss=loss)
        if average and beats.updates > updates:
            average.update()
    beats.flush()
    if average:
        average.update()
    return average.model if average else model


def tensors(model: nn.Module) -> list[Tensor]:
    """Return all that a model holds."""
    return list(model.state_dict().values())


def equal(one: nn.Module, other: nn.Module) -> bool:
    """Tell whether two models hold the same numbers, to the bit."""
    return all(torch.equal(*pair) for pair in zip(tensors(one), tensors(other), strict=True))


PLANS = {
    "window": replace(PLAN, accumulation=AccumulationPlan(window=3)),
    "trigger": replace(PLAN, accumulation=AccumulationPlan(window=4, trigger=1.3)),
    "global scope": replace(PLAN, accumulation=AccumulationPlan(window=4, trigger=1.3, scope="global")),
    "sums": replace(PLAN, accumulation=AccumulationPlan(window=4, mode="sum")),
    "compressor": replace(PLAN, accumulation=AccumulationPlan(window=3, mode="sum", top_k=0.3)),
    "local errors": replace(PLAN, accumulation=LOCAL),
    "anneal": replace(PLAN, accumulation=replace(LOCAL, anneal=0.0)),
    "local scale": replace(PLAN, accumulation=replace(LOCAL, local_scale="norm")),
    "clip": replace(PLAN, clip=0.05),
    "clip and window": replace(PLAN, clip=0.05, accumulation=AccumulationPlan(window=3)),
    "label smoothing": replace(PLAN, label_smoothing=0.2),
    "average": replace(PLAN, ema=0.9, accumulation=AccumulationPlan(window=3)),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_a_setting_does_what_it_does_by_hand(plan: TrainingPlan) -> None:
    """The weights are, to the bit, those of a plain loop; and no other setting gives the same ones."""
    trained = fit(network(), DATA, plan, seed=3).model
    assert equal(trained, by_hand(plan, seed=3))
    assert not any(equal(trained, by_hand(other, seed=3)) for other in (PLAN, *PLANS.values()) if other != plan)


def test_an_average_takes_in_the_last_window() -> None:
    """A window that is as long as the training is flushed, and the average has it."""
    plan = replace(PLAN, ema=0.9, accumulation=AccumulationPlan(window=99))
    assert not equal(fit(network(), DATA, plan, seed=0).model, network())


def test_a_training_that_is_ended_early_is_flushed_too() -> None:
    """What has been accumulated when `keep_going` says no is not lost."""
    plan = replace(PLAN, accumulation=AccumulationPlan(window=99))
    trained = fit(network(), DATA, plan, seed=0, keep_going=lambda score: score.epoch < 1)
    assert trained.stopped_at == 1
    assert not torch.equal(tensors(trained.model)[0], tensors(network())[0])


def test_a_trained_model_has_no_trace_of_local_errors() -> None:
    """No hook and no head is left on the model that fit returns, nor on the one that it was given."""
    model = network()
    trained = fit(model, DATA, replace(PLAN, accumulation=LOCAL, ema=0.9), seed=0).model
    for each in (model, trained):
        assert not any(module._forward_pre_hooks for module in each.modules())
        assert len(list(each.parameters())) == len(list(network().parameters()))


def test_epochs_tell_what_their_regions_did() -> None:
    """With a trigger every epoch has a score for every region, without one none; micro-batches are counted."""
    with_trigger = fit(network(), DATA, PLANS["trigger"], seed=0).curve
    assert [[region.name for region in score.regions] for score in with_trigger] == [["0", "3", "5"]] * EPOCHS
    assert all(0 < region.fires <= score.micro_batches for score in with_trigger for region in score.regions)
    plain: tuple[EpochScore, ...] = fit(network(), DATA, PLAN, seed=0).curve
    assert [(score.micro_batches, score.updates, score.regions) for score in plain] == [(8, 8, ())] * EPOCHS
