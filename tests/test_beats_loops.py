"""Loops of users: what they freeze, schedule, copy, save and get wrong around the method."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from beats_toys import Handed, Told, batch, equal, feed, gradient_of, network, train, weights
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW, Optimizer, lr_scheduler

from beats_search.training import Beats
from beats_search.training.pooling import pool_first


class Partly(nn.Module):
    """A network with a layer that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.idle, self.last = nn.Linear(6, 6), nn.Linear(4, 4), nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.last(torch.tanh(self.first(inputs)))
        return logits


@pytest.mark.parametrize(
    "method",
    [{"window": 1}, {"window": 2}, {"window": 4, "trigger": 1.3}, {"mode": "sum", "top_k": 0.5}, {"local_error": 0.5}],
)
def test_what_is_never_called_is_left_alone(method: dict[str, object]) -> None:
    """A region without gradients neither fires nor fails, and keeps its weights."""
    torch.manual_seed(0)
    model = Partly()
    before = model.idle.weight.detach().clone()
    beats = Beats(SGD(model.parameters(), lr=0.1, weight_decay=0.1), model, **method)  # type: ignore[arg-type]  # from a dict
    train(beats, model, range(6))
    beats.flush()
    assert torch.equal(model.idle.weight, before)
    assert method == {"window": 1} or beats.regions[1].fires == 0


@pytest.mark.parametrize("method", [{"window": 1}, {"window": 3}, {"window": 3, "local_error": 0.5}])
def test_frozen_parameters_keep_their_values(method: dict[str, object]) -> None:
    """Parameters that do not require gradients may be in the optimizer, from the beginning or later on."""
    model = network()
    model[0].requires_grad_(requires_grad=False)
    before = weights(model)
    beats = Beats(SGD(model.parameters(), lr=0.1), model, **method)  # type: ignore[arg-type]  # from a dict
    train(beats, model, range(6))
    model[3].requires_grad_(requires_grad=False)
    beats.flush()
    frozen = weights(model)
    train(beats, model, range(6, 12))
    assert equal(weights(model)[:2], before[:2])
    assert equal(weights(model)[4:6], frozen[4:6])
    assert not torch.equal(weights(model)[6], frozen[6])


SCHEDULERS: dict[str, Callable[[Optimizer], lr_scheduler.LRScheduler]] = {
    "lambda": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step)),
    "one cycle": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=20),
    "restarts": lambda optimizer: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 4),
    "sequence": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer,
        [lr_scheduler.ConstantLR(optimizer), lr_scheduler.ExponentialLR(optimizer, 0.5)],
        milestones=[3],
    ),
}


@pytest.mark.parametrize("schedule", SCHEDULERS.values(), ids=SCHEDULERS.keys())
def test_torch_s_schedulers_go_on_working(schedule: Callable[[Optimizer], lr_scheduler.LRScheduler]) -> None:
    """Heads join the group of their region, so every scheduler finds the groups that it knows."""
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = schedule(optimizer)
    beats = Beats(optimizer, model, local_error=0.5)
    for step in range(8):
        train(beats, model, [step])
        scheduler.step()
    assert len(optimizer.param_groups) == 1


def test_heads_are_trained_as_their_region_is() -> None:
    """A head gets the settings of its region's weights, and leaves the optimizer when the method is closed."""
    model = network()
    slow: dict[str, Any] = {"params": list(model[:3].parameters()), "lr": 0.0}
    optimizer = AdamW([slow, {"params": list(model[3:].parameters())}], lr=0.1)
    count = [len(group["params"]) for group in optimizer.param_groups]
    beats = Beats(optimizer, model, local_error=0.5)
    train(beats, model, range(3))
    assert beats._local is not None
    assert not any(each.any() for each in beats._local.parameters(0))
    assert all(each.any() for each in beats._local.parameters(1))
    beats.close()
    assert [len(group["params"]) for group in optimizer.param_groups] == count
    assert len(optimizer.state) == sum(count)
    Beats(optimizer, model, window=2)


def test_copies_and_files_of_a_model_do_not_listen() -> None:
    """While local errors are in use a model can be copied and pickled, and a copy's forward pass disturbs nothing."""
    found = []
    for disturbed in (False, True):
        model = network()
        beats = Beats(SGD(model.parameters(), lr=0.1), model, local_error=1.0)
        train(beats, model, [0])
        inputs, labels = batch(1)
        torch.manual_seed(1)
        logits = model(inputs)
        if disturbed:
            copy.deepcopy(model)(inputs)
            pickle.loads(pickle.dumps(model))(inputs)  # noqa: S301 - our own bytes
        beats.step(logits, labels)
        found.append(weights(model))
    assert equal(*found)


def test_a_method_that_is_gone_lets_go_of_its_graph() -> None:
    """Without `close`, hooks that nobody asks any more hear nothing."""
    model = network()
    beats = Beats(SGD(model.parameters(), lr=0.1), model, local_error=0.5)
    train(beats, model, [0])
    del beats
    assert model(batch(1)[0]).requires_grad


def test_an_error_in_the_middle_of_a_step_is_not_added_to_the_next() -> None:
    """Gradients that a failed backward pass left behind are dropped, and a user's own too."""
    model = network()
    model[5] = nn.Identity()  # no dropout: the gradient is compared with torch's own
    beats = Beats(SGD(model.parameters(), lr=0.1), model, window=9)
    inputs, labels = batch(0)

    def burst(_: Tensor) -> None:
        raise MemoryError

    handle = next(model[0].parameters()).register_hook(burst)  # type: ignore[no-untyped-call]  # torch has not annotated it
    with pytest.raises(MemoryError):
        beats.step(model(inputs), labels)
    handle.remove()
    beats.step(model(inputs), labels)
    held = [tensor for window in beats._windows for tensor in window.total if tensor is not None]
    assert equal(held, gradient_of(model, 0))


class Pair(nn.Module):
    """A network with two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.top = nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        inner = torch.tanh(self.body(inputs))
        return self.top(inner), inner


def test_outputs_may_be_anything_that_the_loss_takes() -> None:
    """Without local errors nothing is asked of the outputs; a window works as it does for logits."""
    model = Pair()
    beats = Beats(SGD(model.parameters(), lr=0.1), model, window=2)
    for step in range(4):
        inputs, labels = batch(step)
        beats.step(
            model(inputs), labels, loss=lambda out, y: functional.cross_entropy(out[0], y) + out[1].square().mean()
        )
    assert beats.updates == 2


def test_local_errors_need_logits() -> None:
    """Where there is no row of classes for each input, no head is guessed at: one message says what is needed."""
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1))
    beats = Beats(SGD(model.parameters(), lr=0.1), model, local_error=0.5)
    inputs, labels = batch(0)
    with pytest.raises(ValueError, match=r"needs logits \(n, classes\).*got logits \(5,\) and \(5, 4\) from 0"):
        beats.step(model(inputs).squeeze(1), labels.float(), loss=functional.mse_loss)


def test_the_weight_of_local_errors_is_checked() -> None:
    """It stays within its bounds, and cannot be raised where there are no heads to feed."""
    model = network()
    plain, local = (
        Beats(SGD(model.parameters(), lr=0.1), model),
        Beats(SGD(model.parameters(), lr=0.1), model, local_error=0.5),
    )
    for beats, weight, words in ((local, 2.0, "between 0 and 1"), (plain, 0.5, "when the method begins")):
        with pytest.raises(ValueError, match=words):
            beats.local_error = weight
    local.close()
    with pytest.raises(ValueError, match="when the method begins"):
        local.local_error = 0.5
    train(local, model, range(2))


def test_a_successor_that_changes_its_input_has_no_say_in_the_local_error() -> None:
    """A region whose output is changed in place by the next one is trained by the network's loss alone."""

    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.top = nn.Linear(6, 4), _InPlace()

        def forward(self, inputs: Tensor) -> Tensor:
            logits: Tensor = self.top(self.body(inputs) * 1.0)
            return logits

    torch.manual_seed(0)
    model = Shifted()
    beats = Beats(SGD(model.parameters(), lr=0.1), model, local_error=1.0, window=2)
    train(beats, model, [0])
    assert beats._local is not None
    assert beats._local.heads == {}


class _InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shift, self.layer = nn.Parameter(torch.ones(4)), nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        inputs += self.shift
        logits: Tensor = self.layer(inputs)
        return logits


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_agreement_does_not_depend_on_the_type(dtype: torch.dtype) -> None:
    """Large gradients of half precision neither overflow nor are skipped; ρ is that of their values."""
    told = Told([4], dtype)
    beats = Beats(Handed(told).optimizer, told, window=9)
    stream = torch.tensor([[60000.0, 0, 0, 0], [60000.0, 60000.0, 0, 0], [0, 0, 60000.0, -60000.0]], dtype=dtype)
    for gradient in stream[:1] if dtype == torch.float16 else stream:
        feed(beats, told, [gradient])
    rows = stream[:1].double() if dtype == torch.float16 else stream.double()
    assert beats.skipped == 0
    assert beats.regions[0].agreement == pytest.approx(
        float(rows.sum(0).square().sum() / rows.square().sum()), rel=1e-5
    )


@pytest.mark.parametrize(
    ("saved", "loaded", "words"),
    [
        ({"window": 8}, {"window": 4}, "holds 6 micro-batches, a window of 4"),
        ({"window": 8, "local_error": 0.5}, {"window": 8}, "this state has heads"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(
    saved: dict[str, object], loaded: dict[str, object], words: str
) -> None:
    """A state of longer windows, or with heads for nobody, is refused before anything is touched."""
    model = network()
    first = Beats(Adam(model.parameters()), model, **saved)  # type: ignore[arg-type]  # from a dict
    train(first, model, range(6))
    state = first.state_dict()
    first.close()
    second = Beats(Adam(model.parameters()), model, **loaded)  # type: ignore[arg-type]  # from a dict
    with pytest.raises(ValueError, match=words):
        second.load_state_dict(state)
    assert [region.staleness for region in second.regions] == [0, 0, 0]


def test_a_state_from_before_its_heads_resumes() -> None:
    """A state without heads takes the heads from a method that has some, and training goes on from it."""
    model = network()
    beats = Beats(Adam(model.parameters()), model, local_error=0.5)
    empty, start = beats.state_dict(), copy.deepcopy(model.state_dict())
    torch.manual_seed(2)
    train(beats, model, range(5))
    expected = weights(model)
    model.load_state_dict(start)
    beats.load_state_dict(empty)
    torch.manual_seed(2)
    train(beats, model, range(5))
    assert equal(weights(model), expected)


class Tapped(nn.Module):
    """A network that looks at what its Sequential makes halfway."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2))

    def forward(self, images: Tensor) -> Tensor:
        middle: Tensor = self.features[:2](images)
        return middle


def test_pooling_first_keeps_its_hands_off_what_others_look_at() -> None:
    """Sequentials that a user's module calls, ReLUs with hooks, and poolings that return places stay as they are."""
    hooked = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2))
    hooked[1].register_forward_hook(lambda *_: None)
    for model in (Tapped(), hooked, nn.Sequential(nn.ReLU(), nn.MaxPool2d(2, return_indices=True))):
        before = str(model)
        pool_first(model)
        assert str(model) == before


FORMS: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
    "sgd": (SGD, {"weight_decay": 0.01}),
    "momentum": (SGD, {"momentum": 0.9}),
    "dampened": (SGD, {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    "nesterov": (SGD, {"momentum": 0.9, "nesterov": True}),
    "adam": (Adam, {"amsgrad": True}),
    "adamw": (AdamW, {}),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_regions_may_begin_at_different_times(form: tuple[type[Optimizer], dict[str, Any]]) -> None:
    """A fused optimizer does what the unfused one does where a region is updated before another ever was."""
    kind, settings = form
    found = []
    for fused in (False, True):
        told = Told([2, 3])
        optimizer = kind(told.parameters(), lr=0.1, fused=fused, **settings)  # type: ignore[call-arg]  # what every kind of it takes
        beats = Beats(optimizer, told, window=6, trigger=1.5)
        for step in range(12):
            feed(beats, told, [torch.ones(2) * (-1) ** step, torch.arange(3.0)])
        assert [region.fires for region in beats.regions] == [2, 6]
        assert optimizer.param_groups[0]["fused"] is fused
        found.append(weights(told))
    torch.testing.assert_close(*found)
