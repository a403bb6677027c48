"""Keys of stages tell apart what is computed otherwise, and nothing else."""

from dataclasses import replace

import pytest
import torch
from test_stages import MASKED, MIXED, PLAN, PRUNED, PTQ, QAT, SGD, TAUGHT, part, trained_for
from test_training_resume import DATA
from torch import nn

from beats_search.records.part import Part
from beats_search.records.plan import AccumulationPlan, AugmentationPlan, TrialPlan
from beats_search.tensors.data import DataBundle, Standardize
from beats_search.trial import keys as keys_module
from beats_search.trial import recipe
from beats_search.trial.keys import call_key, is_idle, keys_of
from beats_search.trial.recipe import build_model, load_data


def keys(plan: TrialPlan, data: DataBundle = DATA) -> tuple[str, ...]:
    """Return all keys of a plan."""
    found = keys_of(plan, data)
    return (*found.epochs, *found.parts)


CHAIN = replace(PLAN, compression=(PRUNED, QAT))


@pytest.mark.parametrize(
    "plan",
    [
        replace(CHAIN, seed=1),
        replace(CHAIN, model=part("toys:net", width=24)),
        replace(CHAIN, model=part("toys:lazy")),
        *(
            trained_for(3, CHAIN, **settings)
            for settings in (
                {"batch_size": 8},
                {"lr": 0.06},
                {"optimizer": part("sgd", momentum=0.8)},
                {"schedule": Part(name="cosine")},
                {"schedule": part("constant", warmup_epochs=1.0)},
                {"accumulation": AccumulationPlan(window=2)},
                {"accumulation": AccumulationPlan(local_error=0.1)},
                {"augmentation": AugmentationPlan(shift=1)},
                {"batch_norm": "removed"},
                {"label_smoothing": 0.1},
                {"clip": 1.0},
                {"ema": 0.9},
                {"precision": "bf16"},
            )
        ),
    ],
)
def test_what_a_training_depends_on_is_in_all_its_keys(plan: TrialPlan) -> None:
    """A change of any setting of a training changes the key of every epoch, and of every technique after it."""
    assert not set(keys(plan)) & set(keys(CHAIN))


def test_what_a_technique_depends_on_is_in_its_key_and_in_those_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another setting, place, or predecessor of a technique is another key; the training's stay."""
    base = keys_of(CHAIN, DATA)
    for changed in (
        (part("channel_pruning", ratio=0.5, round_to=4, recovery_epochs=3), QAT),
        (part("channel_pruning", ratio=0.6, round_to=4, recovery_epochs=2), QAT),
        (TAUGHT, QAT),
        (PTQ, PRUNED, QAT),
    ):
        found = keys_of(replace(CHAIN, compression=changed), DATA)
        assert found.epochs == base.epochs
        assert not set(found.parts) & set(base.parts)
    last = keys_of(replace(CHAIN, compression=(PRUNED, PTQ)), DATA)
    assert (last.parts[0], last.parts[1] != base.parts[1]) == (base.parts[0], True)
    assert len({call_key(each, index) for each in base.parts for index in range(3)}) == 6
    monkeypatch.setattr(keys_module, "_code", lambda: "other code")
    assert not set(keys(CHAIN)) & {*base.epochs, *base.parts}


def test_data_and_their_preprocessing_are_in_the_keys() -> None:
    """Another image, label or statistic is another key; an equal copy of the data is the same."""
    base = set(keys(PLAN))
    brighter = replace(DATA.train, inputs=DATA.train.inputs.clone())
    brighter.inputs[0, 0, 0, 0] += 0.01
    copied = replace(DATA.train, inputs=DATA.train.inputs.clone())
    assert set(keys(PLAN, replace(DATA, train=copied))) == base
    assert not set(keys(PLAN, replace(DATA, train=brighter))) & base
    assert not set(keys(PLAN, replace(DATA, preprocess=Standardize([0.5], [0.2])))) & base
    assert not set(keys(PLAN, replace(DATA, train=DATA.train.first(49)))) & base


def test_machine_and_libraries_are_in_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another kind of processor or version of a library may round otherwise."""
    base = set(keys(PLAN))
    with monkeypatch.context() as patch:
        patch.setattr(keys_module, "_libraries", lambda: ("torch 99",))
        assert not set(keys(PLAN)) & base
    monkeypatch.setattr(keys_module, "_machine", lambda _: {"device": "abacus"})
    assert not set(keys(PLAN)) & base


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (PLAN, replace(PLAN, runtime=part("onnxruntime", threads=2))),
        (trained_for(3, device="auto"), trained_for(3, device="cpu")),
        (trained_for(3, optimizer=SGD), trained_for(3, optimizer=part("sgd", momentum=0.9, nesterov=False))),
        (trained_for(3), trained_for(3, schedule=part("constant", warmup_epochs=0.0))),
        (trained_for(3), trained_for(3, schedule=part("step", step_epochs=3))),
        (trained_for(3), trained_for(3, accumulation=AccumulationPlan(anneal=0.5, scope="global", mode="sum"))),
        (
            replace(PLAN, compression=(part("channel_pruning", ratio=0.0, round_to=4), QAT)),
            replace(PLAN, compression=(part("channel_pruning", ratio=0.0, recovery_epochs=5), QAT)),
        ),
        (replace(PLAN, compression=(PTQ,)), replace(PLAN, compression=(part("quantization", bits=8, mode="ptq"),))),
    ],
)
def test_what_has_no_effect_is_in_no_key(one: TrialPlan, other: TrialPlan) -> None:
    """Settings at their defaults, without an effect, or of later stages leave the keys as they are."""
    if one.training.device == "auto" and torch.accelerator.is_available():
        pytest.skip("auto is not the CPU here")
    assert keys(one) == keys(other)


def shared(one: TrialPlan, other: TrialPlan) -> int:
    """Return how many epochs two trainings have in common."""
    pairs = zip(keys_of(one, DATA).epochs, keys_of(other, DATA).epochs, strict=False)
    alike = [left == right for left, right in pairs]
    assert alike == sorted(alike, reverse=True), "after the first difference nothing is shared"
    return sum(alike)


def with_schedule(epochs: int, name: str, **settings: object) -> TrialPlan:
    """Return the plan with a schedule."""
    return trained_for(epochs, schedule=part(name, **settings))


def test_trainings_share_the_epochs_in_which_their_rates_are_the_same() -> None:
    """Constant rates and steps share whatever the length; cosines of another length nothing."""
    assert shared(trained_for(4), trained_for(12)) == 4
    steps = with_schedule(4, "step", step_epochs=3), with_schedule(12, "step", step_epochs=3)
    assert shared(*steps) == 4
    assert shared(steps[1], with_schedule(12, "step", step_epochs=5)) == 3
    assert shared(steps[1], trained_for(12)) == 3
    assert shared(with_schedule(4, "cosine"), with_schedule(12, "cosine")) == 0
    assert shared(with_schedule(12, "cosine"), with_schedule(12, "cosine")) == 12
    warm = {"warmup_epochs": 5.0}
    assert shared(with_schedule(12, "cosine", **warm), with_schedule(8, "cosine", **warm)) == 5
    annealed, constant = (AccumulationPlan(window=2, local_error=0.3, anneal=anneal) for anneal in (0.5, 0.0))
    assert shared(trained_for(4, accumulation=annealed), trained_for(12, accumulation=annealed)) == 2
    assert shared(trained_for(4, accumulation=constant), trained_for(12, accumulation=constant)) == 4


@pytest.mark.parametrize(
    "idle",
    [
        part("channel_pruning", ratio=0.0, recovery_epochs=2),
        part("magnitude_pruning", ratio=0.0, recovery_epochs=2),
        part("quantization", bits=32, mode="qat", recovery_epochs=2),
    ],
    ids=lambda each: each.name,
)
def test_an_idle_technique_returns_the_model_itself(idle: Part) -> None:
    """What a key takes for a technique that does nothing does nothing; the others do something."""
    plan, data = replace(PLAN, compression=(idle,)), load_data(PLAN.dataset)
    model = build_model(plan, data)
    assert is_idle(idle)
    assert recipe.apply_technique(model, plan, 0, data, _never) is model
    assert not any(is_idle(each) for each in (PRUNED, MASKED, PTQ, QAT, MIXED))


def _never(*_: object, **__: object) -> nn.Module:
    raise AssertionError("there was nothing to train")
