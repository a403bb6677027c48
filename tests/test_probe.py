"""Probe: what is measured once, for which plans it holds, and for which it does not."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn
from toys import stripes

from beats_search.app.spaces import read
from beats_search.measuring.footprint import measure_footprint
from beats_search.records.outcome import Footprint, Interval, Latency
from beats_search.records.part import Part
from beats_search.records.plan import TrainingPlan, TrialPlan
from beats_search.search.domain import domain_of, value_at
from beats_search.space.draw import Replay
from beats_search.tensors.data import DataBundle
from beats_search.training.fit import fit
from beats_search.trial import probe as probing
from beats_search.trial.likeness import file_key
from beats_search.trial.probe import Probe, ProbedFile, Probes, decides, foreseen, probe, probe_file, trial_seconds
from beats_search.trial.recipe import build_model, example_of, load_data, runtime_of
from beats_search.trial.run import Reference

PLAN = TrialPlan(
    dataset=Part(name="toys:stripes", settings=(("count", 240), ("classes", 10))),
    model=Part(name="cnn", settings=(("width", 8), ("dense", 16))),
    training=TrainingPlan(epochs=6, batch_size=16, lr=0.01),
)


def pruned(ratio: float, **settings: int | str) -> Part:
    """Return channel pruning."""
    return Part(name="channel_pruning", settings=(("ratio", ratio), ("round_to", 4), *settings.items()))


def quantized(bits: int, **settings: int | str) -> Part:
    """Return quantization."""
    return Part(name="quantization", settings=(("bits", bits), *settings.items()))


def nothing() -> None:
    """Stand for a session."""


REFERENCE = Reference(open=lambda: nothing)


def key_of(plan: TrialPlan, reference: Reference = REFERENCE) -> object:
    """Return what a plan's file is kept by."""
    data = stripes()
    compressed = probing._compressed(build_model(plan, data), plan, data)
    like = file_key(compressed, plan, data.input_shape)
    return None if like is None else (like, reference)


def epoch_key(plan: TrialPlan) -> object:
    """Return what the seconds of a plan's epochs are kept by."""
    data = stripes()
    return probing._epoch_key(build_model(plan, data), plan, data)


SMALL = replace(PLAN, compression=(pruned(0.5), quantized(8)))
TRAINED_OTHERWISE = {
    "lr": replace(SMALL, training=replace(SMALL.training, lr=0.3)),
    "epochs": replace(SMALL, training=replace(SMALL.training, epochs=2)),
    "schedule": replace(SMALL, training=replace(SMALL.training, schedule=Part(name="cosine"))),
    "seed": replace(SMALL, seed=7),
}
RECOVERED_OTHERWISE = {
    "recovery": replace(SMALL, compression=(pruned(0.5, recovery_epochs=3), quantized(8))),
    "criterion": replace(SMALL, compression=(pruned(0.5, criterion="random"), quantized(8))),
    "ratio that rounds to the same widths": replace(SMALL, compression=(pruned(0.55), quantized(8))),
}


@pytest.mark.parametrize("change", [*TRAINED_OTHERWISE, *RECOVERED_OTHERWISE])
def test_what_shapes_nothing_shares_a_file(change: str) -> None:
    """Plans whose files differ in their weights alone have one key."""
    assert key_of(SMALL) is not None
    assert key_of((TRAINED_OTHERWISE | RECOVERED_OTHERWISE)[change]) == key_of(SMALL)


OTHER_FILES = {
    "width": replace(SMALL, model=Part(name="cnn", settings=(("width", 8), ("dense", 32)))),
    "ratio": replace(SMALL, compression=(pruned(0.75), quantized(8))),
    "no pruning": replace(SMALL, compression=(quantized(8),)),
    "full precision": replace(SMALL, compression=(pruned(0.5),)),
    "fewer bits": replace(SMALL, compression=(pruned(0.5), quantized(4))),
    "threads": replace(SMALL, runtime=Part(name="onnxruntime", settings=(("threads", 2),))),
    "batch": replace(SMALL, runtime=Part(name="onnxruntime", settings=(("batch_size", 4),))),
}


@pytest.mark.parametrize("change", OTHER_FILES)
def test_what_shapes_a_file_or_its_call_gives_another_key(change: str) -> None:
    """Widths, precision, bits, runtime: a plan that differs in one of them is measured on its own."""
    assert key_of(OTHER_FILES[change]) not in (None, key_of(SMALL))


SPACE = """
name: knobs
dataset: {name: "toys:stripes", count: 240}
model: {choice: [{name: resnet, width: {choice: [4, 8]}}, {name: mlp, width: 16}]}
training:
  epochs: 6
  batch_size: 16
  lr: {low: 0.01, high: 0.1}
  schedule: {choice: [constant, {name: step, step_epochs: 2, gamma: {low: 0.1, high: 0.5}}]}
  accumulation: {window: {choice: [1, 2]}}
  batch_norm: {choice: [as_built, removed]}
compression:
  - {name: channel_pruning, ratio: {choice: [0.0, 0.5]}, round_to: 4, recovery_epochs: {low: 0, high: 3}}
runtime: {name: onnxruntime, threads: {choice: [1, 2]}}
objectives: {accuracy: maximize, latency_ms: minimize}
"""


def test_a_knob_that_changes_a_file_is_told(tmp_path: Path) -> None:
    """Of all knobs, moved one at a time, those that are said to decide nothing leave the file's key as it is."""
    (tmp_path / "space.yaml").write_text(SPACE, encoding="utf-8")
    domain = domain_of(read(tmp_path / "space.yaml", ()))
    least = {knob.path: value_at(knob, 0.0) for knob in domain.knobs}
    least["training.schedule"] = "step"  # so that its own knob counts
    keys = {knob.path: key_of(domain.draw(Replay(least | {knob.path: value_at(knob, 0.99)}))) for knob in domain.knobs}
    without = key_of(domain.draw(Replay(least)))
    assert {path for path, key in keys.items() if key == without} == {path for path in keys if not decides(path)}


def test_a_latency_holds_for_its_reference_only() -> None:
    """What was paired with one file, or stands on one scale, is not taken for another."""
    other, scaled = Reference(open=lambda: nothing), replace(REFERENCE, median_ms=2.0)
    assert len({key_of(SMALL), key_of(SMALL, other), key_of(SMALL, scaled)}) == 3


def test_an_epoch_takes_as_long_whatever_its_rate_and_what_follows() -> None:
    """The seconds of an epoch hold for other rates, lengths, seeds and compressions, not for other batches."""
    batches = replace(SMALL, training=replace(SMALL.training, batch_size=8))
    assert {epoch_key(plan) for plan in (TRAINED_OTHERWISE | RECOVERED_OTHERWISE).values()} == {epoch_key(SMALL)}
    assert epoch_key(OTHER_FILES["full precision"]) == epoch_key(SMALL)
    assert epoch_key(batches) != epoch_key(SMALL)
    assert epoch_key(OTHER_FILES["width"]) != epoch_key(SMALL)


def latency(median_ms: float) -> Latency:
    """Return a latency that nobody measured."""
    interval = Interval(low=median_ms, high=median_ms)
    return Latency(
        median_ms=median_ms,
        interval_ms=interval,
        ratio=median_ms,
        ratio_interval=interval,
        raw_median_ms=median_ms,
        blocks=1,
        calls=1,
        settled=True,
    )


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replace timing by a latency that counts, and return the counts."""
    seen: list[int] = []

    def timing(*_: object, **__: object) -> Latency:
        seen.append(len(seen) + 1)
        return latency(float(len(seen)))

    monkeypatch.setattr(probing, "measure_latency", timing)
    return seen


@pytest.mark.slow
def test_a_structure_is_measured_once(timed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The second plan of a structure gets what was found for the first, without export, timing or training."""
    probes = Probes()
    first = probe(SMALL, REFERENCE, probes=probes)
    monkeypatch.setattr(probing, "fit", None)
    monkeypatch.setattr(probing, "runtime_of", None)
    again = probe(TRAINED_OTHERWISE["lr"], REFERENCE, probes=probes)
    assert again == first
    assert len(timed) == 1


UNFORESEEN = {
    "layers that compete": (
        Part(name="channel_pruning", settings=(("ratio", 0.5), ("ranking", "global"))),
        {"latency_ms", "size_kb", "macs"},
    ),
    "layers that compete for nothing": (
        Part(name="channel_pruning", settings=(("ratio", 0.0), ("ranking", "global"))),
        set(),
    ),
    "each layer for itself": (Part(name="channel_pruning", settings=(("ratio", 0.5),)), set()),
    "weights that compete": (
        Part(name="magnitude_pruning", settings=(("ratio", 0.5), ("scope", "global"))),
        {"size_kb"},
    ),
    "weights within a layer": (Part(name="magnitude_pruning", settings=(("ratio", 0.5),)), set()),
    "bits by sensitivity": (Part(name="quantization", settings=(("bits", "mixed"),)), {"size_kb"}),
    "bits for all": (Part(name="quantization", settings=(("bits", 4),)), set()),
}


@pytest.mark.parametrize("what", UNFORESEEN)
def test_what_trained_weights_decide_is_not_foreseen(what: str) -> None:
    """Of a plan whose widths or bits come from its trained weights, what these decide is left open."""
    part, expected = UNFORESEEN[what]
    plan = replace(SMALL, compression=(part,))
    found = ProbedFile(
        footprint=Footprint(size_kb=1.0, parameters=3, macs=2), latency=latency(3.0), executed_as="fp32", seconds=0.0
    )
    assert {"latency_ms", "size_kb", "macs"} - foreseen(plan, found).keys() == expected


def normed(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return a model that begins with a norm, whose vectors are equal before training."""
    features = math.prod(input_shape)
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(features), nn.ReLU(), nn.Linear(features, classes))


@pytest.mark.slow
@pytest.mark.usefixtures("timed")
def test_the_size_is_that_of_a_trained_model(tmp_path: Path) -> None:
    """A file holds equal vectors once; those of a trained model differ, and the probe knows."""
    plan = replace(PLAN, model=Part(name=f"{__name__}:normed"), compression=())
    data = load_data(plan.dataset)
    trained = fit(build_model(plan, data), data, plan.training, seed=0).model
    runtime = runtime_of(plan)
    engine = runtime.deploy(trained, example_of(data), tmp_path / f"trained{runtime.suffix}")
    size_kb = measure_footprint(trained, example_of(data), engine.path).size_kb
    assert probe_file(plan, REFERENCE, probes=Probes()).footprint.size_kb == size_kb


def hooked(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return a model with a hook, whose author alone knows what it does."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), classes))
    model.register_forward_hook(lambda *_: None)
    return model


def test_a_model_that_cannot_be_compared_has_no_key() -> None:
    """What may differ unseen is measured each time."""
    plan = replace(PLAN, model=Part(name=f"{__name__}:hooked"))
    assert key_of(plan) is None
    assert epoch_key(plan) is None


def test_a_probe_calibrates_on_a_few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """An untrained network's ranges are worth no more, so that a structure is known in a moment."""
    counts: list[int] = []

    def noted(model: nn.Module, _: TrialPlan, data: DataBundle, *__: object) -> nn.Module:
        counts.append(len(data.train))
        return model

    monkeypatch.setattr(probing, "compress", noted)
    key_of(SMALL)
    assert counts == [8]


def test_a_trial_takes_its_epochs_and_its_recoveries() -> None:
    """Seconds are estimated from all epochs, those of techniques that do something included, and from measuring."""
    found = Probe(
        footprint=Footprint(size_kb=1.0, parameters=1, macs=1),
        latency=latency(1.0),
        executed_as="fp32",
        measuring_seconds=5.0,
        epoch_seconds=2.0,
    )
    assert trial_seconds(RECOVERED_OTHERWISE["recovery"], found) == 2.0 * (6 + 3) + 5.0
    idle = replace(SMALL, compression=(pruned(0.0, recovery_epochs=3), quantized(8)))
    assert trial_seconds(idle, found) == 2.0 * 6 + 5.0
