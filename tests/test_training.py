"""Fit returns a trained copy, exactly reproducible, and asks its three seams at the right moments."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, nn
from torch.nn.functional import cross_entropy

from beats_search.datasets.digits import Digits
from beats_search.models.resnet import Resnet
from beats_search.records.errors import DivergedError
from beats_search.records.outcome import EpochScore
from beats_search.records.part import Part
from beats_search.records.plan import AccumulationPlan, AugmentationPlan, TrainingPlan
from beats_search.tensors.data import DataBundle, Split
from beats_search.training import fit as fit_module
from beats_search.training import precision
from beats_search.training.accuracy import accuracy
from beats_search.training.checkpoint import TrainingState
from beats_search.training.devices import find_device
from beats_search.training.fit import fit
from beats_search.training.precision import MACS_WORTH_IT, Numerics, find_numerics
from beats_search.training.threads import Threads

CPU = torch.device("cpu")
PLAN = TrainingPlan(epochs=3, batch_size=16, optimizer=Part(name="sgd"), lr=0.1, device="cpu", precision="fp32")


def split(count: int, seed: int) -> Split:
    """Return images of 4x4 pixels, brighter on the left for class 0, at the top for 1, else for 2."""
    generator = Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    inputs = torch.rand(count, 1, 4, 4, generator=generator) / 2
    inputs[labels == 0, :, :, :2] += 0.5
    inputs[labels == 1, :, :2, :] += 0.5
    return Split(inputs=inputs, labels=labels)


DATA = DataBundle(train=split(50, 0), validation=split(30, 1), test=split(30, 2), classes=("left", "top", "none"))


def network() -> nn.Module:
    """Return a small network with all that is random or stateful in training, always the same one."""
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2)
    return nn.Sequential(*layers, nn.Linear(64, 3))


def equal(one: nn.Module, other: nn.Module) -> bool:
    """Tell whether two models of one shape hold the same numbers, to the bit."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(left, right) for left, right in pairs)


def test_training_learns() -> None:
    """Three classes that differ plainly are told apart after a few epochs."""
    trained = fit(network(), DATA, replace(PLAN, epochs=12), seed=0)
    assert trained.curve[-1].accuracy > 0.9
    assert trained.curve[-1].train_loss < trained.curve[0].train_loss


def test_the_argument_stays_as_it_is() -> None:
    """The model that comes in keeps its weights, statistics, mode and layout."""
    model = network().train()
    fit(model, DATA, PLAN, seed=0)
    assert equal(model, network())
    assert model.training
    assert all(parameter.grad is None and parameter.is_contiguous() for parameter in model.parameters())


def test_the_result_is_ready_for_use() -> None:
    """The trained model is on the CPU, in eval mode, in torch's own layout, and holds no gradients."""
    model = fit(network(), DATA, replace(PLAN, accumulation=AccumulationPlan(window=5)), seed=0).model
    assert not any(module.training for module in model.modules())
    for parameter in model.parameters():
        assert (parameter.device, parameter.grad, parameter.is_contiguous()) == (CPU, None, True)


@pytest.mark.parametrize("augmentation", [AugmentationPlan(), AugmentationPlan(shift=1, flip=True, rotation=10)])
def test_equal_seeds_give_equal_weights(augmentation: AugmentationPlan) -> None:
    """Batches, dropout and augmentation follow from the seed alone, whatever was drawn before."""
    plan = replace(PLAN, augmentation=augmentation)
    first = fit(network(), DATA, plan, seed=7)
    model = network()
    torch.rand(13)
    assert equal(fit(model, DATA, plan, seed=7).model, first.model)
    assert not equal(fit(model, DATA, plan, seed=8).model, first.model)


def test_the_random_state_of_the_caller_is_not_touched() -> None:
    """Training in between changes nothing that a caller draws."""
    model = network()
    before = torch.get_rng_state()
    fit(model, DATA, PLAN, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def by_hand(model: nn.Module, window: int) -> nn.Module:
    """Train as `fit` does, written out: 3 epochs of batches of 16, 16, 16 and 2."""
    generator = Generator().manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    batches = [order for _ in range(3) for order in torch.split(torch.randperm(50, generator=generator), 16)]
    for start in range(0, len(batches), window):
        optimizer.zero_grad()
        members = batches[start : start + window]
        for batch in members:
            torch.autograd.backward(cross_entropy(model(DATA.train.inputs[batch]), DATA.train.labels[batch]))
        for parameter in model.parameters():
            parameter.grad = None if parameter.grad is None else parameter.grad / len(members)
        optimizer.step()
    return model


@pytest.mark.parametrize("window", [1, 5, 99])
def test_training_is_the_textbook_loop(window: int) -> None:
    """The weights are to the bit those of a loop written out; windows cross epochs and are flushed at the end."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 9), nn.ReLU(), nn.Linear(9, 3))
    plan = replace(PLAN, accumulation=AccumulationPlan(window=window))
    trained = fit(model, DATA, plan, seed=0).model
    assert equal(trained, by_hand(model, window))


def test_the_schedule_sets_the_rate_of_every_micro_batch() -> None:
    """A rate that falls by a billion after the first epoch freezes the weights there."""
    schedule = Part(name="step", settings=(("step_epochs", 1), ("gamma", 1e-9)))
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    long = fit(model, DATA, replace(PLAN, schedule=schedule), seed=0).model
    short = fit(model, DATA, replace(PLAN, schedule=schedule, epochs=1), seed=0).model
    for one, other in zip(long.parameters(), short.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_bytes_train_as_the_fractions_that_they_stand_for() -> None:
    """uint8 images give the weights that the same images give as floats."""
    inputs = (DATA.train.inputs * 255).to(torch.uint8)
    as_bytes = replace(DATA, train=Split(inputs=inputs, labels=DATA.train.labels), validation=DATA.validation)
    as_floats = replace(DATA, train=Split(inputs=inputs.float() / 255, labels=DATA.train.labels))
    assert equal(fit(network(), as_bytes, PLAN, seed=0).model, fit(network(), as_floats, PLAN, seed=0).model)


def test_frozen_parameters_stay() -> None:
    """A parameter that asks for no gradient is trained around."""
    model = network()
    next(model.parameters()).requires_grad = False
    trained = fit(model, DATA, PLAN, seed=0).model
    assert torch.equal(next(trained.parameters()), next(model.parameters()))
    assert not equal(trained, model)


def test_the_curve_has_a_score_per_epoch() -> None:
    """Epochs count from 1, and the last accuracy is that of the model that is returned."""
    trained = fit(network(), DATA, PLAN, seed=0)
    assert [score.epoch for score in trained.curve] == [1, 2, 3]
    assert trained.stopped_at is None
    assert trained.curve[-1].accuracy == accuracy(trained.model, DATA.validation)


def test_keep_going_is_asked_after_each_epoch_and_obeyed() -> None:
    """The first no ends the training; scores come one at a time and in order."""
    seen: list[EpochScore] = []

    def until_the_second(score: EpochScore) -> bool:
        seen.append(score)
        return score.epoch < 2

    trained = fit(network(), DATA, PLAN, seed=0, keep_going=until_the_second)
    assert trained.stopped_at == 2
    assert trained.curve == tuple(seen)
    assert [score.epoch for score in seen] == [1, 2]


def test_every_batch_is_paced() -> None:
    """The pace is entered and left once for each batch: four of training and one of validation an epoch."""
    events: list[str] = []

    @contextmanager
    def pace() -> Iterator[None]:
        events.append("in")
        yield
        events.append("out")

    fit(network(), DATA, PLAN, seed=0, pace=pace)
    assert events == ["in", "out"] * 3 * (4 + 1)


class Kept:
    """A checkpoint that begins at the beginning and keeps every state."""

    def __init__(self) -> None:
        self.states: list[TrainingState] = []

    def latest(self) -> None:
        """Begin."""

    def keep(self, state: TrainingState) -> None:
        """Keep one more."""
        self.states.append(state)


def test_a_checkpoint_is_offered_after_each_epoch() -> None:
    """Each state names its epoch and holds the weights as they are then; the last ones are the result."""
    kept = Kept()
    trained = fit(network(), DATA, PLAN, seed=0, checkpoint=kept)
    assert [state.epoch for state in kept.states] == [1, 2, 3]
    first, _, last = (state.model for state in kept.states)
    assert all(torch.equal(last[name], tensor) for name, tensor in trained.model.state_dict().items())
    assert not torch.equal(first["0.weight"], last["0.weight"])


def test_a_loss_that_is_no_number_ends_the_training() -> None:
    """The error says in which epoch and micro-batch and at which rate it happened."""
    with pytest.raises(DivergedError, match=r"the loss is (nan|inf) in epoch 1, micro-batch \d+ of 4, lr 1e\+30"):
        fit(network(), DATA, replace(PLAN, lr=1e30), seed=0)


def test_weights_that_are_no_numbers_end_the_training() -> None:
    """A last step that breaks the weights is found, though no loss came after it."""
    overflow = Part(name="sgd", settings=(("weight_decay", 1e3),))
    plan = replace(PLAN, optimizer=overflow, lr=1e38, epochs=1, batch_size=50)
    with pytest.raises(DivergedError, match="logits are not finite"):
        fit(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), DATA, plan, seed=0)


@given(count=st.integers(1, 200), size=st.integers(1, 70))
def test_batches_deal_every_input_once(count: int, size: int) -> None:
    """Every input is in one batch; all are full but the last, and none is of one input if that can be."""
    batches = fit_module._batches(count, size, Generator().manual_seed(0))
    assert sorted(torch.cat(batches).tolist()) == list(range(count))
    assert all(len(batch) == size for batch in batches[:-1])
    assert len(batches[-1]) <= size + 1
    assert min(len(batch) for batch in batches) > 1 or size == 1 or count == 1


def test_batch_normalization_survives_a_rest_of_one() -> None:
    """49 inputs in batches of 16 leave one over, which joins the last batch."""
    normalized = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.BatchNorm1d(3))
    trained = fit(normalized, replace(DATA, train=DATA.train.first(49)), PLAN, seed=0)
    assert int(trained.model.state_dict()["2.num_batches_tracked"]) == 3 * 3


@given(correct=st.lists(st.booleans(), min_size=1, max_size=2500))
def test_accuracy_is_the_share_of_right_answers(correct: list[bool]) -> None:
    """The logits of a model that returns its inputs are right as often as they were made right."""
    labels = torch.arange(len(correct)) % 5
    answers = torch.where(torch.tensor(correct), labels, (labels + 1) % 5)
    logits = nn.functional.one_hot(answers, 5).float()
    assert accuracy(nn.Identity(), Split(inputs=logits, labels=labels)) == pytest.approx(sum(correct) / len(correct))


def test_accuracy_is_taken_in_eval_mode() -> None:
    """Dropout of everything does not touch it."""
    logits = nn.functional.one_hot(torch.arange(4), 4).float()
    model = nn.Dropout(p=1.0).train()
    assert accuracy(model, Split(inputs=logits, labels=torch.arange(4))) == 1


def test_a_device_that_is_not_here_is_refused() -> None:
    """The error lists the devices that this machine has."""
    with pytest.raises(ValueError, match=r"training.device .* one that is here \(cpu.*got 'abacus'"):
        find_device("abacus")
    with pytest.raises(ValueError, match="got 'cuda:99'"):
        find_device("cuda:99")


def test_auto_finds_a_device_of_this_machine() -> None:
    """`auto` is the CPU exactly when there is no accelerator; the CPU can be asked for by name."""
    assert (find_device("auto").type == "cpu") == (not torch.accelerator.is_available())
    assert find_device("cpu") == CPU


@pytest.mark.parametrize("has_bf16", [True, False])
def test_precision_is_chosen_by_the_work_in_a_batch(monkeypatch: pytest.MonkeyPatch, *, has_bf16: bool) -> None:
    """`auto` takes bf16 where the machine has it and a batch holds enough multiply-accumulates."""
    monkeypatch.setattr(precision, "has_bf16", lambda _device: has_bf16)
    model = nn.Sequential(nn.Linear(1000, 1000), nn.ReLU(), nn.Linear(1000, 1000))
    enough = MACS_WORTH_IT // 2_000_000
    assert find_numerics("auto", model, (enough, 1000), CPU).bf16 == has_bf16
    assert not find_numerics("auto", model, (enough - 1, 1000), CPU).bf16


def test_the_work_of_a_convolution_is_counted_per_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A convolution multiplies each weight once per pixel of its output."""
    monkeypatch.setattr(precision, "has_bf16", lambda _device: True)
    monkeypatch.setattr(precision, "MACS_WORTH_IT", 7 * (3 * 3 * 2 * 5) * (4 * 6))
    model = nn.Conv2d(2, 5, 3)
    assert find_numerics("auto", model, (7, 2, 6, 8), CPU).bf16
    assert not find_numerics("auto", model, (6, 2, 6, 8), CPU).bf16


@pytest.mark.parametrize(("asked", "bf16"), [("fp32", False), ("bf16", True)])
def test_a_precision_that_is_asked_for_is_taken(asked: precision.Precision, *, bf16: bool) -> None:
    """Only `auto` looks at the machine and the model."""
    dense, convolution = nn.Linear(2, 2), nn.Conv2d(1, 1, 1)
    small = Numerics(bf16=bf16, parallel=False)
    assert find_numerics(asked, dense, (1, 2), CPU) == small
    assert find_numerics(asked, convolution, (1, 1, 2, 2), CPU) == replace(small, channels_last=True)


def test_small_batches_are_computed_on_one_thread() -> None:
    """Threads are shared out only where a batch holds enough work, and their number is put back after."""
    model, before = nn.Linear(1000, 1000), torch.get_num_threads()
    few, many = (find_numerics("fp32", model, (count, 1000), CPU) for count in (1, MACS_WORTH_IT // 1_000_000))
    with Threads(parallel=few.parallel).held():
        assert torch.get_num_threads() == 1
    with Threads(parallel=many.parallel).held():
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("got", "kept"), [(0.5, 1), (0.7, 1), (0.8, 2), (1.0, 2)])
def test_threads_that_do_not_get_their_cores_are_given_up(got: float, kept: int) -> None:
    """Two threads that got less than three quarters of two cores become one, until the training ends."""
    now, before = 0.0, torch.get_num_threads()
    torch.set_num_threads(2)
    threads = Threads(parallel=True, wall=lambda: now, worked=lambda: 2 * got * now)
    with threads.held():
        for _ in range(10):
            now += 0.1
            threads.look()
        assert torch.get_num_threads() == kept
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


class _Viewer(nn.Module):
    """Flattens by `view`, which only torch's own layout allows."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.dense = nn.Conv2d(1, 4, 3), nn.Linear(4 * 6 * 6, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.convolution(images))
        logits: torch.Tensor = self.dense(features.view(features.size(0), -1))
        return logits


def test_a_model_that_views_keeps_its_layout() -> None:
    """Channels go last only where the model computes with that; a model that asks for a `view` does not."""
    shape = (16, 1, 8, 8)
    assert not find_numerics("fp32", _Viewer(), shape, CPU).channels_last
    assert find_numerics("fp32", nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten()), shape, CPU).channels_last


def test_choosing_a_precision_leaves_the_model_alone() -> None:
    """Counting the work neither changes statistics nor the mode."""
    model = network().train()
    find_numerics("auto", model, (16, 1, 4, 4), CPU)
    assert equal(model, network())
    assert model.training
    assert not any(layer._forward_hooks for layer in model.modules())


def test_bf16_trains_weights_of_full_precision() -> None:
    """Under bf16 the weights stay float32 and come close to those of fp32 training."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    coarse = fit(model, DATA, replace(PLAN, precision="bf16"), seed=0).model
    fine = fit(model, DATA, PLAN, seed=0).model
    assert not equal(coarse, fine)
    for one, other in zip(coarse.parameters(), fine.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0.02)


@pytest.mark.slow
def test_a_small_resnet_reads_digits() -> None:
    """Six epochs take a ResNet of width 16 to 93 % on validation digits, and more."""
    data = Digits().load()
    torch.manual_seed(0)
    model = nn.Sequential(data.preprocess, Resnet(width=16).build(data.input_shape, len(data.classes)))
    optimizer = Part(name="sgd", settings=(("momentum", 0.9),))
    plan = TrainingPlan(epochs=6, optimizer=optimizer, lr=0.1, schedule=Part(name="one_cycle"), device="cpu")
    assert fit(model, data, plan, seed=0).curve[-1].accuracy >= 0.93
