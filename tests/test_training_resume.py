"""A training that is stored after some epochs and goes on later is, to the bit, the training in one go."""

import io
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor, nn

from beats_search.records.outcome import EpochScore
from beats_search.records.part import Part
from beats_search.records.plan import AccumulationPlan, AugmentationPlan, TrainingPlan
from beats_search.tensors.data import DataBundle, Split
from beats_search.tensors.seams import Distillation
from beats_search.training import fit as fit_module
from beats_search.training.checkpoint import TrainingState, fits, from_saved, is_whole, restore, tensors_of, to_saved
from beats_search.training.fit import Trained, fit, steps_per_epoch

PLAN = TrainingPlan(epochs=5, batch_size=16, optimizer=Part(name="sgd"), lr=0.1, device="cpu", precision="fp32")
MOMENTUM = Part(name="sgd", settings=(("momentum", 0.9), ("nesterov", True), ("weight_decay", 1e-3)))
STEP = Part(name="step", settings=(("step_epochs", 2), ("gamma", 0.3)))
WARM = Part(name="constant", settings=(("warmup_epochs", 2.5),))
AUGMENTED = AugmentationPlan(shift=1, flip=True, rotation=10)
HALF_FULL = AccumulationPlan(window=3, mode="sum")
TRIGGERED = AccumulationPlan(window=6, trigger=1.3)
LOCAL = AccumulationPlan(window=3, trigger=1.2, local_error=0.4, anneal=0.0)
COMPRESSED = AccumulationPlan(window=3, mode="sum", top_k=0.2)


def split(count: int, seed: int) -> Split:
    """Return random images of 4x4 pixels, brighter on the left for class 0, at the top for 1, else for 2."""
    generator = Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    inputs = torch.rand(count, 1, 4, 4, generator=generator) / 2
    inputs[labels == 0, :, :, :2] += 0.5
    inputs[labels == 1, :, :2, :] += 0.5
    return Split(inputs=inputs, labels=labels)


DATA = DataBundle(train=split(50, 0), validation=split(30, 1), test=split(3, 2), classes=("left", "top", "none"))


def network(seed: int = 0) -> nn.Module:
    """Return a small network with all that is random or stateful in training."""
    torch.manual_seed(seed)
    layers = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
    return nn.Sequential(*layers, nn.Dropout(0.2), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))


class Files:
    """A checkpoint that keeps every state as the bytes of a file, and goes on from the last one it is given."""

    def __init__(self, begin: bytes | None = None) -> None:
        self.written: list[bytes] = []
        self._begin = begin

    def latest(self) -> TrainingState | None:
        """Read where to go on, as plain data only."""
        if self._begin is None:
            return None
        return from_saved(torch.load(io.BytesIO(self._begin), weights_only=True, map_location="cpu"))

    def keep(self, state: TrainingState) -> None:
        """Write a state."""
        file = io.BytesIO()
        torch.save(to_saved(state), file)
        self.written.append(file.getvalue())


def timeless(curve: Iterable[EpochScore]) -> list[str]:
    """Return all of a curve but its seconds; NaN equals itself."""
    return [repr(replace(score, seconds=0.0)) for score in curve]


def same(one: Trained, other: Trained) -> bool:
    """Tell whether weights, buffers, modes and curve are the same, to the bit."""
    ours, theirs = tensors_of(one.model), tensors_of(other.model)
    modes = [[module.training for module in each.model.modules()] for each in (one, other)]
    gradients = [each.grad for trained in (one, other) for each in trained.model.parameters()]
    return (
        list(ours) == list(theirs)
        and all(torch.equal(ours[name], theirs[name]) and ours[name].stride() == theirs[name].stride() for name in ours)
        and modes[0] == modes[1]
        and not any(gradient is not None for gradient in gradients)
        and timeless(one.curve) == timeless(other.curve)
        and one.stopped_at == other.stopped_at
    )


def in_two_goes(plan: TrainingPlan, first: int, teacher: Distillation | None = None) -> Trained:
    """Train for the first epochs, store, and go on in a new process, as far as one process can tell."""
    files = Files()
    fit(network(), DATA, replace(plan, epochs=first), seed=3, checkpoint=files, distillation=teacher)
    torch.rand(17)
    begin = Files(files.written[-1])
    return fit(network(seed=9), DATA, plan, seed=3, checkpoint=begin, distillation=teacher)


@pytest.mark.parametrize(
    "plan",
    [
        PLAN,
        replace(PLAN, optimizer=MOMENTUM, schedule=STEP, clip=0.5, label_smoothing=0.1),
        replace(PLAN, optimizer=Part(name="adam"), lr=0.01, ema=0.9, schedule=WARM),
        replace(PLAN, optimizer=Part(name="adamw"), lr=0.01, augmentation=AUGMENTED),
        replace(PLAN, optimizer=MOMENTUM, accumulation=HALF_FULL, ema=0.8),
        replace(PLAN, optimizer=Part(name="adam"), lr=0.01, accumulation=TRIGGERED, augmentation=AUGMENTED),
        replace(PLAN, optimizer=MOMENTUM, accumulation=LOCAL, ema=0.9),
        replace(PLAN, optimizer=Part(name="adam"), lr=0.01, accumulation=LOCAL, clip=1.0),
        replace(PLAN, accumulation=COMPRESSED),
        replace(PLAN, precision="bf16", optimizer=MOMENTUM),
    ],
    ids=lambda plan: f"{plan.optimizer.name}-{plan.accumulation.window}-{plan.ema}-{plan.precision}",
)
@pytest.mark.parametrize("first", [1, 3])
def test_two_goes_are_one(plan: TrainingPlan, first: int) -> None:
    """Weights, buffers and curve do not tell that training paused, whatever was half done when it did."""
    assert same(in_two_goes(plan, first), fit(network(), DATA, plan, seed=3))


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator")
def test_two_goes_are_one_on_an_accelerator() -> None:
    """The generators of the device, which dropout and augmentation draw from, go on as well."""
    plan = replace(PLAN, device="auto", optimizer=MOMENTUM, augmentation=AUGMENTED, accumulation=LOCAL)
    assert same(in_two_goes(plan, 2), fit(network(), DATA, plan, seed=3))


def test_two_goes_are_one_with_a_teacher() -> None:
    """A student of the same teacher goes on where it was."""
    teacher = Distillation(teacher=fit(network(5), DATA, PLAN, seed=1).model, weight=0.7)
    plan = replace(PLAN, optimizer=MOMENTUM, augmentation=AUGMENTED)
    assert same(in_two_goes(plan, 2, teacher), fit(network(), DATA, plan, seed=3, distillation=teacher))


@settings(max_examples=8)
@given(
    window=st.integers(1, 9),
    trigger=st.sampled_from(["never", 1.2, 2.0]),
    local_error=st.sampled_from([0.0, 0.5]),
    optimizer=st.sampled_from([Part(name="sgd"), MOMENTUM, Part(name="adam")]),
    ema=st.sampled_from([0.0, 0.9]),
    first=st.integers(1, 2),
)
def test_two_goes_are_one_in_any_combination(
    window: int, trigger: float, local_error: float, optimizer: Part, ema: float, first: int
) -> None:
    """No choice of window, trigger, local errors, optimizer and average tells that training paused."""
    method = AccumulationPlan(window=window, trigger=trigger, local_error=local_error, anneal=0.0)
    plan = replace(PLAN, epochs=3, optimizer=optimizer, lr=0.02, accumulation=method, ema=ema)
    assert same(in_two_goes(plan, first), fit(network(), DATA, plan, seed=3))


@pytest.mark.parametrize("accumulation", [AccumulationPlan(), HALF_FULL, LOCAL])
def test_a_finished_training_is_not_trained_again(
    accumulation: AccumulationPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the state after the last epoch, no epoch is left, and the result is that of the training in one go."""
    plan, files = replace(PLAN, accumulation=accumulation, epochs=2, ema=0.9), Files()
    kept = fit(network(), DATA, plan, seed=3, checkpoint=files)
    assert same(kept, fit(network(), DATA, plan, seed=3))
    monkeypatch.setattr(fit_module, "_train_epoch", None)
    assert same(fit(network(7), DATA, plan, seed=3, checkpoint=Files(files.written[-1])), kept)


def test_schedules_know_the_whole_training() -> None:
    """A cosine of five epochs that stopped after two goes on as a cosine of five."""
    plan = replace(PLAN, schedule=Part(name="cosine"), accumulation=replace(LOCAL, anneal=0.5))
    files = Files()
    stopped = fit(network(), DATA, plan, seed=3, checkpoint=files, keep_going=lambda score: score.epoch < 2)
    assert stopped.stopped_at == 2
    resumed = fit(network(), DATA, plan, seed=3, checkpoint=Files(files.written[-1]))
    assert same(resumed, fit(network(), DATA, plan, seed=3))


def test_keep_going_is_asked_from_the_last_stored_score_on() -> None:
    """Of what was trained before, the last score alone is asked about; a no there ends a training at once."""
    files, asked = Files(), list[int]()

    def note(score: EpochScore) -> bool:
        asked.append(score.epoch)
        return score.epoch != 4

    fit(network(), DATA, replace(PLAN, epochs=2), seed=3, checkpoint=files)
    trained = fit(network(), DATA, PLAN, seed=3, checkpoint=Files(files.written[-1]), keep_going=note)
    assert asked == [2, 3, 4]
    assert trained.stopped_at == 4
    assert [score.epoch for score in trained.curve] == [1, 2, 3, 4]
    refused = fit(network(), DATA, PLAN, seed=3, checkpoint=Files(files.written[-1]), keep_going=lambda _: False)
    assert refused.stopped_at == 2


def test_a_state_is_a_copy() -> None:
    """What a checkpoint was given does not change when training goes on."""
    first = First()
    plan = replace(PLAN, accumulation=LOCAL, ema=0.9)
    through = fit(network(), DATA, plan, seed=3, checkpoint=first)
    assert first.state is not None
    assert same(fit(network(), DATA, plan, seed=3, checkpoint=first), through)


class First:
    """A checkpoint that holds on to the first state as it was given, and goes on from there."""

    def __init__(self) -> None:
        self.state: TrainingState | None = None

    def latest(self) -> TrainingState | None:
        """Return the first state, if there was one."""
        return self.state

    def keep(self, state: TrainingState) -> None:
        """Hold on to the first state."""
        self.state = self.state or state


def test_a_checkpoint_changes_nothing() -> None:
    """A training whose states are kept gives what one without gives, half full windows at its end or not."""
    for accumulation in (AccumulationPlan(), HALF_FULL, LOCAL):
        plan = replace(PLAN, accumulation=accumulation, epochs=2)
        assert same(fit(network(), DATA, plan, seed=3, checkpoint=Files()), fit(network(), DATA, plan, seed=3))


def test_a_state_of_another_training_is_refused() -> None:
    """A longer training, and one of another network, cannot be gone on with, and the error says so."""
    files = Files()
    fit(network(), DATA, PLAN, seed=3, checkpoint=files)
    with pytest.raises(ValueError, match="training of 4 epochs cannot go on after epoch 5"):
        fit(network(), DATA, replace(PLAN, epochs=4), seed=3, checkpoint=Files(files.written[-1]))
    other = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with pytest.raises(ValueError, match=r"a state needs the names, shapes and types"):
        fit(other, DATA, PLAN, seed=3, checkpoint=Files(files.written[-1]))


class _Counting(nn.Module):
    """Counts its batches in a buffer that no state dict has, and scales by it."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.seen += 1
        return inputs / (1 + self.seen)


def test_buffers_that_no_state_dict_has_go_on() -> None:
    """A buffer that is not persistent is part of the state all the same."""
    model = nn.Sequential(_Counting(), nn.Flatten(), nn.Linear(16, 3))
    files = Files()
    fit(model, DATA, replace(PLAN, epochs=2), seed=3, checkpoint=files)
    resumed = fit(model, DATA, PLAN, seed=3, checkpoint=Files(files.written[-1]))
    assert same(resumed, fit(model, DATA, PLAN, seed=3))
    assert "0.seen" not in resumed.model.state_dict()


class _Extra(nn.Module):
    def get_extra_state(self) -> str:
        return "a word"

    def set_extra_state(self, state: object) -> None:
        """Forget it."""


def test_a_model_with_more_than_tensors_says_so() -> None:
    """State beside the tensors, and tensors that are no plain ones, keep a model from being stored whole."""
    assert is_whole(network())
    assert not is_whole(nn.Sequential(_Extra()))
    sparse = nn.Module()
    sparse.register_buffer("weights", torch.eye(3).to_sparse())
    assert not is_whole(sparse)


def test_tensors_fit_by_name_shape_and_type() -> None:
    """A model takes tensors of its own names, shapes and types, and no others."""
    model, own = nn.Linear(2, 3), tensors_of(nn.Linear(2, 3))
    restore(model, own)
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())
    for other in (
        {**own, "more": torch.zeros(1)},
        {"weight": own["weight"]},
        {**own, "bias": torch.zeros(4)},
        {**own, "bias": own["bias"].double()},
    ):
        assert not fits(model, other)


@given(count=st.integers(1, 200), size=st.integers(1, 70))
def test_steps_are_counted_as_they_are_dealt(count: int, size: int) -> None:
    """The number of micro-batches of an epoch is that of the batches dealt."""
    assert steps_per_epoch(count, size) == len(fit_module._batches(count, size, Generator().manual_seed(0)))


def test_the_random_state_of_the_caller_is_not_touched_by_going_on() -> None:
    """A resumed training leaves the caller's draws as they would have been."""
    files, model = Files(), network()
    fit(model, DATA, replace(PLAN, epochs=2), seed=3, checkpoint=files)
    before = torch.get_rng_state()
    fit(model, DATA, PLAN, seed=3, checkpoint=Files(files.written[-1]), pace=nullcontext)
    assert torch.equal(torch.get_rng_state(), before)
