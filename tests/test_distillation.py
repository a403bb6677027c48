"""Distillation: a student is trained on the labels and on the softened logits of its teacher."""

from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor, nn
from torch.nn import functional
from torch.optim import SGD

from beats_search.records.part import Part
from beats_search.records.plan import AccumulationPlan, AugmentationPlan, TrainingPlan, TrialPlan
from beats_search.tensors.data import DataBundle
from beats_search.tensors.seams import Distillation
from beats_search.training.accumulation import Beats
from beats_search.training.distillation import objective
from beats_search.training.fit import _batches, fit
from beats_search.training.precision import PLAIN
from beats_search.trial.recipe import recovery

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")

PLAN = TrainingPlan(epochs=1, batch_size=32, optimizer=Part(name="sgd"), lr=0.05, device="cpu", precision="fp32")


def network(seed: int) -> nn.Sequential:
    """Return a network of three regions for 8×8 images, with dropout and a norm, so that its mode matters."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 16), nn.Dropout(), nn.Linear(16, 10)
    ).eval()  # fmt: skip


def equal(one: nn.Module, other: nn.Module) -> bool:
    """Tell whether two models hold the same numbers, to the bit."""
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


@given(weight=st.floats(0.01, 1), temperature=st.floats(0.5, 20), seed=st.integers(0, 99))
def test_the_loss_is_the_weighted_sum(weight: float, temperature: float, seed: int) -> None:
    """It is (1 - w)·cross entropy + w·T²·Σ p·log(p/q), averaged over the images, with softened p and q."""
    random, teacher = Generator().manual_seed(seed), nn.Flatten()
    images, logits = (3 * torch.randn(6, 10, generator=random) for _ in range(2))
    labels = torch.randint(10, (6,), generator=random)
    p, q = ((each / temperature).softmax(1) for each in (images, logits))
    expected = (1 - weight) * functional.cross_entropy(logits, labels)
    expected = expected + weight * temperature**2 * (p * (p / q).log()).sum(1).mean()
    taught = Distillation(teacher=teacher, weight=weight, temperature=temperature)
    found = objective(functional.cross_entropy, taught, PLAIN, CPU)(images)(logits, labels)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_without_a_teacher_the_loss_is_the_plain_one() -> None:
    """Nothing is put around the plain loss where nothing is distilled."""
    assert objective(functional.cross_entropy, None, PLAIN, CPU)(torch.zeros(1)) is functional.cross_entropy


def test_a_student_that_is_its_teacher_learns_nothing_from_it() -> None:
    """At weight 1 the loss of equal logits is 0, and so is its gradient, whatever the labels are."""
    student, images = network(0), torch.rand(8, 1, 8, 8)
    loss = objective(functional.cross_entropy, Distillation(teacher=student, weight=1.0), PLAIN, CPU)(images)
    value = loss(student(images), torch.zeros(8, dtype=torch.int64))
    value.backward()  # type: ignore[no-untyped-call]  # torch leaves it so
    assert abs(float(value.detach())) < 1e-6
    assert all(float(each.grad.abs().max()) < 1e-6 for each in student.parameters() if each.grad is not None)


def by_hand(plan: TrainingPlan, data: DataBundle, teacher: nn.Module) -> nn.Module:
    """Distill as fit says that it does, at weight 0.7 and temperature 3."""
    model, settings = network(0), plan.accumulation
    optimizer = SGD(model.parameters(), lr=plan.lr)
    beats = Beats(optimizer, model, window=settings.window, local_error=settings.local_error)

    def loss(logits: Tensor, labels: Tensor, images: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = functional.log_softmax(teacher(images) / 3, dim=1)
        distance = functional.kl_div(
            functional.log_softmax(logits / 3, dim=1), wanted, reduction="batchmean", log_target=True
        )
        return (1 - 0.7) * functional.cross_entropy(logits, labels) + 0.7 * 9 * distance

    torch.manual_seed(3)
    for batch in _batches(len(data.train), plan.batch_size, Generator().manual_seed(3)):
        images, labels = data.train.inputs[batch], data.train.labels[batch]
        beats.step(model.train()(images), labels, loss=partial(loss, images=images))
    beats.flush()
    return model


@pytest.mark.parametrize("settings", [{}, {"window": 3}, {"local_error": 0.5, "anneal": 0.0}], ids=str)
def test_fit_distills_as_a_loop_written_by_hand(settings: dict[str, Any], stripes: DataBundle) -> None:
    """The weights are, to the bit, those of a plain loop; the heads of regions learn from the teacher too."""
    plan, teacher = replace(PLAN, accumulation=AccumulationPlan(**settings)), network(1)
    taught = Distillation(teacher=teacher, weight=0.7, temperature=3.0)
    trained = fit(network(0), stripes, plan, seed=3, distillation=taught).model
    assert equal(trained, by_hand(plan, stripes, teacher))
    assert not equal(trained, fit(network(0), stripes, plan, seed=3).model)


def test_the_teacher_stays_as_it_is_and_teaches_in_eval_mode(stripes: DataBundle) -> None:
    """A teacher left in training mode is not trained, keeps its mode, and teaches what it does in eval mode."""
    training, resting = network(1).train(), network(1)
    models = [
        fit(network(0), stripes, PLAN, seed=0, distillation=Distillation(teacher=teacher, weight=0.5)).model
        for teacher in (training, resting)
    ]
    assert equal(*models)
    assert equal(training, network(1))
    assert all(module.training for module in training.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in training.parameters())


class _Noting(nn.Module):
    """Notes what it is given, also when it is copied."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Tensor] = []
        self.layer = nn.Linear(64, 10)

    def __deepcopy__(self, memo: dict[int, object]) -> "_Noting":
        del memo
        return self

    def forward(self, images: Tensor) -> Tensor:
        if not torch.is_inference_mode_enabled():  # as in the validation after each epoch
            self.given.append(images)
        logits: Tensor = self.layer(images.flatten(1))
        return logits


def test_teacher_and_student_see_the_same_augmented_images(stripes: DataBundle) -> None:
    """Each batch is changed at random once, and both networks compute that."""
    plan = replace(PLAN, augmentation=AugmentationPlan(shift=2))
    teacher, student = _Noting(), _Noting()
    fit(student, stripes, plan, seed=0, distillation=Distillation(teacher=teacher, weight=0.5))
    assert len(teacher.given) == len(stripes.train) // plan.batch_size
    assert all(torch.equal(*pair) for pair in zip(teacher.given, student.given, strict=True))


def test_a_student_comes_to_agree_with_its_teacher(stripes: DataBundle) -> None:
    """Taught by the teacher alone, for labels that are all wrong, it decides as the teacher does."""
    plan = replace(PLAN, epochs=15, lr=0.01, optimizer=Part(name="adam"))
    teacher = fit(network(1), stripes, plan, seed=0).model
    wrong = replace(stripes.train, labels=(stripes.train.labels + 1) % 10)
    taught = Distillation(teacher=teacher, weight=1.0)
    student = fit(network(0), replace(stripes, train=wrong), plan, seed=0, distillation=taught).model
    with torch.inference_mode():
        chosen, wanted = (model(stripes.train.inputs).argmax(1) for model in (student, teacher))
    assert float((wanted == stripes.train.labels).float().mean()) > 0.9
    assert float((chosen == wanted).float().mean()) > 0.9


def test_recovery_hands_the_teacher_to_fit(stripes: DataBundle) -> None:
    """Fine-tuning with a teacher gives other weights than without, and leaves the student's dense parent alone."""
    plan = TrialPlan(dataset=Part(name="digits"), model=Part(name="mlp"), training=PLAN)
    fine_tune, student, teacher = recovery(plan, stripes), network(0), network(1)
    before = deepcopy(student)
    taught = fine_tune(student, 1, distillation=Distillation(teacher=teacher, weight=0.9))
    assert not equal(taught, fine_tune(student, 1))
    assert equal(student, before)


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"weight": 0.0}, "above 0 and at most 1, got 0.0"),
        ({"weight": 1.5}, "above 0 and at most 1, got 1.5"),
        ({"weight": 0.5, "temperature": 0.0}, "temperature of a distillation needs to be above 0"),
    ],
)
def test_nonsense_is_refused(settings: dict[str, float], rule: str) -> None:
    """A share of nothing, of more than all, and a temperature of 0 cannot be distilled with."""
    with pytest.raises(ValueError, match=rule):
        Distillation(teacher=nn.Identity(), **settings)
