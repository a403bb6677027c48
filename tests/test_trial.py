"""A trial: one plan through real training, compression and export; every failure named by its stage."""

import errno
import hashlib
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, cast

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from toys import stripes

from beats_search.measuring import quality
from beats_search.measuring.blocks import Protocol
from beats_search.measuring.quiet import ALONE
from beats_search.records.errors import ParityError, SearchEndedError, TrialError
from beats_search.records.outcome import Failed, Finished, Stopped
from beats_search.records.part import Part
from beats_search.records.plan import AccumulationPlan, TrainingPlan, TrialPlan
from beats_search.runtimes.onnxruntime import OnnxRuntime
from beats_search.tensors.seams import Engine, Runtime
from beats_search.trial import run as trial_run
from beats_search.trial.probe import count_macs, deploy_untrained, probe
from beats_search.trial.recipe import build_model, data_facts, load_data, recovery_plan, stage_seed
from beats_search.trial.run import Instruments, Reference, run_trial
from beats_search.trial.run import test_accuracy as measure_test_accuracy
from beats_search.trial.timing import Timing

PLAN = TrialPlan(
    dataset=Part(name="toys:stripes", settings=(("count", 240), ("classes", 10))),
    model=Part(name="toys:net", settings=(("width", 16),)),
    training=TrainingPlan(epochs=6, batch_size=16, lr=0.01),
)
PRUNED = Part(
    name="channel_pruning",
    settings=(("ratio", 0.5), ("round_to", 8), ("recovery_epochs", 1)),
)
INT8 = Part(name="quantization", settings=(("bits", 8),))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """Return the untrained file of the plan, for latencies to be paired with."""
    engine = deploy_untrained(PLAN, tmp_path_factory.mktemp("reference") / "model.onnx")
    return Reference(open=engine.open)


@pytest.fixture(scope="module")
def small(reference: Reference, tmp_path_factory: pytest.TempPathFactory) -> tuple[Finished, Path, TrialPlan]:
    """Return a pruned and quantized trial that finished, with its folder."""
    plan = replace(PLAN, compression=(PRUNED, INT8))
    folder = tmp_path_factory.mktemp("models") / "1"
    outcome = run_trial(plan, folder, reference)
    assert isinstance(outcome, Finished), outcome
    return outcome, folder, plan


@pytest.mark.slow
def test_figures_are_those_of_the_file(small: tuple[Finished, Path, TrialPlan]) -> None:
    """A plain onnxruntime session on the file gives exactly the trial's accuracy, and the file is the one named."""
    outcome, folder, _ = small
    data, path = stripes(), folder / "model.onnx"
    logits = onnxruntime.InferenceSession(path).run(None, {"input": data.validation.inputs.numpy()})[0]
    assert np.mean(logits.argmax(1) == data.validation.labels.numpy()) == outcome.accuracy
    assert outcome.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert outcome.footprint.size_kb == path.stat().st_size / 1000


@pytest.mark.slow
def test_compression_is_real(small: tuple[Finished, Path, TrialPlan]) -> None:
    """The pruned, quantized file runs on integer kernels and does half the work of the dense model."""
    outcome, _, _ = small
    assert outcome.executed_as == "int8"
    assert outcome.footprint.macs < 0.6 * count_macs(PLAN)
    assert outcome.accuracy > 0.5


@pytest.mark.slow
def test_the_method_s_layers_and_errors_survive_compression(reference: Reference, tmp_path: Path) -> None:
    """A network of Beats layers trained by local errors is pruned, recovers by the method, and ships int8 kernels."""
    method = AccumulationPlan(window=4, trigger=1.4, local_error=0.3)
    plan = replace(
        PLAN,
        model=Part(name="cnn", settings=(("beats_layers", 1), ("width", 16))),
        training=replace(PLAN.training, epochs=2, accumulation=method),
        compression=(PRUNED, INT8),
    )
    outcome = run_trial(plan, tmp_path / "1", reference)
    assert isinstance(outcome, Finished), outcome
    assert outcome.executed_as == "int8"
    for score in outcome.curve:
        assert any(region.fires < score.micro_batches for region in score.regions)


@pytest.mark.slow
def test_every_stage_is_timed(small: tuple[Finished, Path, TrialPlan]) -> None:
    """A finished trial tells the seconds of each stage, and its curve has a score per epoch."""
    outcome, _, plan = small
    assert list(outcome.stage_seconds) == ["dataset", "model", "training", "compression", "export", "measuring"]
    assert [score.epoch for score in outcome.curve] == list(range(1, plan.training.epochs + 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spent", "budget_s", "patience"), [(0.1, 0.3, 1), (6.0, 0.6, 1), (30.0, 1.5, 2), (99.0, 1.5, 4)]
)
def test_timing_takes_little_beside_the_rest(
    spent: float, budget_s: float, patience: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It takes a tenth of what the trial took, at least 0.3 s; only a long one waits for a neighbour to leave."""
    given: list[Protocol] = []
    monkeypatch.setattr(trial_run, "measure_latency", lambda *_, protocol, **__: given.append(protocol))
    engine = cast("Engine", SimpleNamespace(open=lambda: None, path=tmp_path))
    trial_run._timed(PLAN, engine, Reference(open=lambda: lambda: None), Instruments(), None, spent)
    assert [(rules.budget_s, rules.patience) for rules in given] == [pytest.approx((budget_s, patience))]


def test_a_trial_leaves_its_model_and_nothing_else(small: tuple[Finished, Path, TrialPlan]) -> None:
    """What a trial wrote aside is gone when it has ended."""
    _, folder, _ = small
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]


@pytest.mark.slow
def test_parity_is_looked_at_on_all_classes(
    reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of validation inputs that are sorted by class, some of every class show whether file and model agree."""
    seen = list[Tensor]()

    def noted(file: Tensor, model: Tensor, *, exact: bool) -> None:
        assert exact
        torch.testing.assert_close(file, model, atol=1e-4, rtol=0)
        seen.append(model)

    monkeypatch.setattr(trial_run, "check_parity", noted)
    plan = replace(PLAN, dataset=Part(name="toys:in_order"), training=replace(PLAN.training, epochs=1))
    assert isinstance(run_trial(plan, tmp_path / "1", reference), Finished)
    (logits,) = seen
    assert len({tuple(row) for row in logits.tolist()}) >= 10


def test_test_split_is_measured_on_the_file(small: tuple[Finished, Path, TrialPlan]) -> None:
    """Test accuracy is that of a plain session on the test split."""
    _, folder, plan = small
    test = stripes().test
    logits = onnxruntime.InferenceSession(folder / "model.onnx").run(None, {"input": test.inputs.numpy()})[0]
    assert measure_test_accuracy(plan, folder / "model.onnx", ALONE) == np.mean(logits.argmax(1) == test.labels.numpy())


@pytest.mark.slow
def test_same_plan_and_seed_train_the_same_weights(reference: Reference, tmp_path: Path) -> None:
    """Two runs of one plan give the same file, to the bit; another seed gives another."""
    plan = replace(PLAN, training=replace(PLAN.training, epochs=1))
    plans = (plan, plan, replace(plan, seed=1))
    outcomes = [run_trial(each, tmp_path / str(index), reference) for index, each in enumerate(plans)]
    hashes = [outcome.sha256 for outcome in outcomes if isinstance(outcome, Finished)]
    assert hashes[0] == hashes[1]
    assert hashes[0] != hashes[2]


@pytest.mark.slow
def test_compression_is_seeded_by_the_plan(
    small: tuple[Finished, Path, TrialPlan], reference: Reference, tmp_path: Path
) -> None:
    """Pruning, recovery and quantization of one plan give the same file again, to the bit."""
    first, _, plan = small
    again = run_trial(plan, tmp_path / "1", reference)
    assert isinstance(again, Finished)
    assert again.sha256 == first.sha256


@pytest.mark.parametrize(
    ("model", "stage", "reason"),
    [
        ("raises", "model", "RuntimeError: my own"),
        ("exits", "model", "SystemExit: bye"),
        ("wrong_shape", "model", r"logits of \(2, 10\), got \(2, 11\)"),
        ("breaks_in_training", "training", "cannot be trained"),
    ],
)
def test_a_model_that_fails_is_named_with_its_stage(
    model: str, stage: str, reason: str, reference: Reference, tmp_path: Path
) -> None:
    """Whatever a user's model raises becomes a failure of its stage, in one line, with the traceback kept."""
    outcome = run_trial(replace(PLAN, model=Part(name=f"toys:{model}")), tmp_path / "models" / "1", reference)
    assert isinstance(outcome, Failed)
    assert outcome.stage == stage
    assert "\n" not in outcome.reason
    assert re.search(reason, outcome.reason)
    assert "Traceback" in outcome.detail
    assert not list((tmp_path / "models").iterdir())


@pytest.mark.slow
def test_a_model_without_a_graph_fails_in_its_export(reference: Reference, tmp_path: Path) -> None:
    """What cannot be exported is trained, and then fails as an export."""
    plan = replace(PLAN, model=Part(name="toys:cannot_be_exported"), training=replace(PLAN.training, epochs=1))
    outcome = run_trial(plan, tmp_path / "1", reference)
    assert isinstance(outcome, Failed)
    assert outcome.stage == "export"


@pytest.mark.parametrize("faithful", [False, True], ids=["as it is", "had it promised otherwise"])
def test_rounding_that_was_asked_for_costs_accuracy(
    reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, faithful: bool
) -> None:
    """A runtime that stores weights in 4 bits may decide unlike the model; only one that promises parity fails so."""
    monkeypatch.setattr(quality, "_SAME_DECISIONS", 1.01)  # so that even 4 bits of this network are too few
    wide = Part(name="mlp", settings=(("depth", 2), ("width", 256)))
    runtime = Part(name="onnxruntime", settings=(("linear_bits", 4),))
    plan = replace(PLAN, model=wide, runtime=runtime, training=TrainingPlan(epochs=1, batch_size=16))
    if faithful:
        monkeypatch.setattr(OnnxRuntime, "faithful", True)
    outcome = run_trial(plan, tmp_path / "4", reference)
    if faithful:
        assert isinstance(outcome, Failed)
        assert (outcome.stage, outcome.reason.partition(":")[0]) == ("export", "ParityError")
        return
    assert isinstance(outcome, Finished), outcome
    data = load_data(plan.dataset).validation
    logits = OnnxRuntime(linear_bits=4).load(tmp_path / "4" / "model.onnx").logits(data.inputs)
    assert outcome.accuracy == float((logits.argmax(1) == data.labels).double().mean())


def test_no_rounding_allows_logits_that_are_no_numbers() -> None:
    """A file that computes NaN is no model, whatever was asked for."""
    data = load_data(PLAN.dataset)
    model = build_model(PLAN, data)
    engine = SimpleNamespace(logits=lambda inputs: model(inputs) * torch.nan, executed_as="bf16")
    rounding = cast("Runtime", SimpleNamespace(faithful=False))
    with pytest.raises(ParityError, match="not finite"):
        trial_run._check_file(rounding, model, cast("Engine", engine), data)


def test_divergence_is_a_failure_of_training(reference: Reference, tmp_path: Path) -> None:
    """A loss that is no number any more ends the trial, with the epoch in the reason."""
    optimizer = Part(name="sgd")
    plan = replace(PLAN, training=replace(PLAN.training, optimizer=optimizer, lr=1e30))
    outcome = run_trial(plan, tmp_path / "1", reference)
    assert isinstance(outcome, Failed)
    assert outcome.stage == "training"
    assert "DivergedError" in outcome.reason
    assert "epoch" in outcome.reason


@pytest.mark.parametrize(
    ("dataset", "reason"), [("one_class", "one class only"), ("no_bundle", "needs to give a DataBundle, got int")]
)
def test_data_that_is_no_data_set_is_refused(dataset: str, reason: str, reference: Reference, tmp_path: Path) -> None:
    """Data that nothing can be learned from fails in its stage."""
    outcome = run_trial(replace(PLAN, dataset=Part(name=f"toys:{dataset}")), tmp_path / "1", reference)
    assert isinstance(outcome, Failed)
    assert outcome.stage == "dataset"
    assert reason in outcome.reason


def test_a_trial_that_is_asked_to_stop_is_stopped(reference: Reference, tmp_path: Path) -> None:
    """When nothing is to be gained any more, the trial ends after that epoch, with its curve."""
    outcome = run_trial(PLAN, tmp_path / "1", reference, keep_going=lambda score: score.epoch < 2)
    assert isinstance(outcome, Stopped)
    assert outcome.epoch == 2
    assert len(outcome.curve) == 2


def test_a_reason_says_the_cause() -> None:
    """Where the first line of an error ends in a colon the second is in the reason, and only then."""
    announced = RuntimeError("Error(s) in loading state_dict for Net:\n\n\tMissing key: weight\n\tmore")
    assert Timing().failed(announced).reason == (
        "RuntimeError: Error(s) in loading state_dict for Net: Missing key: weight"
    )
    assert Timing().failed(ValueError("width needs to be at least 1\nsee above")).reason == (
        "ValueError: width needs to be at least 1"
    )
    assert Timing().failed(KeyError()).reason == "KeyError:"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_not_the_trial_s_fault(
    code: int, reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No space left ends the search with what to do, instead of failing trial after trial."""

    def full(*_: object, **__: object) -> None:
        raise OSError(code, "no space", "/somewhere/model.onnx")

    monkeypatch.setattr(trial_run, "fit", full)
    with pytest.raises(SearchEndedError, match=r"no space left on the disk .*model.onnx.*free some space"):
        run_trial(PLAN, tmp_path / "1", reference)


@pytest.mark.slow
def test_probe_knows_the_structure_before_training(
    small: tuple[Finished, Path, TrialPlan], reference: Reference
) -> None:
    """Untrained, a plan has the same work, parameters and kernels as when it is trained, and almost the same size."""
    outcome, _, plan = small
    found = probe(plan, reference)
    assert found.footprint.macs == outcome.footprint.macs
    assert found.footprint.parameters == outcome.footprint.parameters
    assert found.footprint.size_kb == pytest.approx(outcome.footprint.size_kb, rel=0.02)
    assert found.executed_as == outcome.executed_as
    assert found.epoch_seconds > 0


def test_stages_have_seeds_of_their_own() -> None:
    """The seeds of stages differ from each other and from those of another plan's seed."""
    other = replace(PLAN, seed=1)
    seeds = {stage_seed(plan, stage) for plan in (PLAN, other) for stage in ("model", "training", "recovery")}
    assert len(seeds) == 6
    assert stage_seed(PLAN, "model") == stage_seed(replace(PLAN, compression=(INT8,)), "model")


LAZY = replace(PLAN, model=Part(name="toys:lazy"))


def test_lazy_layers_get_their_weights_from_the_plan_s_seed() -> None:
    """The first call draws them: the same again for one seed, others for another, whatever the caller has drawn."""
    first = build_model(LAZY, stripes()).state_dict()
    before = torch.random.get_rng_state()
    torch.manual_seed(99)
    again, other = (build_model(plan, stripes()).state_dict() for plan in (LAZY, replace(LAZY, seed=1)))
    torch.random.set_rng_state(before)
    for name in ("network.0.layer.weight", "network.5.weight"):
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])


def test_building_lazy_layers_leaves_the_caller_s_random_state() -> None:
    """Weights are drawn from the plan's own seed, apart from everyone else's numbers."""
    before = torch.random.get_rng_state()
    build_model(LAZY, stripes())
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("choice", ["as_built", "added", "removed"])
def test_lazy_layers_can_be_trained(choice: Literal["as_built", "added", "removed"]) -> None:
    """Weights of the first call take gradients and steps as any others do, with norms or without."""
    training = replace(LAZY.training, batch_norm=choice)
    data, model = stripes(), build_model(replace(LAZY, training=training), stripes()).train()
    weights = [weight for weight in model.parameters() if weight.ndim > 1]  # a bias before a norm does nothing
    before = [weight.detach().clone() for weight in weights]
    torch.autograd.backward(nn.functional.cross_entropy(model(data.train.inputs), data.train.labels))
    torch.optim.Adam(model.parameters(), lr=0.1).step()
    assert not any(isinstance(module, LazyModuleMixin) for module in model.modules())
    assert not any(torch.equal(weight, old) for weight, old in zip(weights, before, strict=True))


def test_the_first_call_teaches_a_model_nothing() -> None:
    """Norms have seen no batch when training begins."""
    norm = build_model(LAZY, stripes()).get_submodule("network.2").state_dict()
    assert norm["num_batches_tracked"].item() == 0
    assert torch.equal(norm["running_mean"], torch.zeros(8))
    assert torch.equal(norm["running_var"], torch.ones(8))


@pytest.mark.parametrize(("choice", "expected"), [("as_built", 1), ("added", 3), ("removed", 0)])
def test_a_plan_chooses_the_batch_norms(choice: Literal["as_built", "added", "removed"], expected: int) -> None:
    """Norms are added or removed in the network, and its weights are those that it has as built."""
    plan = replace(LAZY, training=replace(LAZY.training, batch_norm=choice))
    model, built = build_model(plan, stripes()), build_model(LAZY, stripes())
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert len(norms) == expected
    weights = model.state_dict()
    layers = [name for name, value in built.named_parameters() if value.ndim > 1]
    assert all(torch.equal(weights[name], built.state_dict()[name]) for name in layers)


def test_norms_that_a_model_cannot_take_are_named() -> None:
    """Where a layer's output is no row of units, the failure says that the added norms are the reason."""
    plan = replace(PLAN, model=Part(name="toys:tokens"), training=replace(PLAN.training, batch_norm="added"))
    with pytest.raises(TrialError, match=r"model 'toys:tokens' cannot run with batch_norm: added: "):
        build_model(plan, stripes())


def test_recovery_is_the_plan_s_training_in_short() -> None:
    """A recovery trains as the plan says, for fewer epochs, from a lower rate down to nothing."""
    recovery = recovery_plan(PLAN.training, 2)
    assert recovery.epochs == 2
    assert recovery.lr < PLAN.training.lr
    assert recovery.schedule.name == "cosine"
    assert recovery.batch_size == PLAN.training.batch_size


def test_majority_share_is_what_guessing_reaches() -> None:
    """The commonest class of the validation split, always guessed, is right as often as the facts say."""
    facts = data_facts(PLAN.dataset)
    labels = load_data(PLAN.dataset).validation.labels
    assert facts.majority_share == max(float((labels == number).double().mean()) for number in range(10))
    assert facts.input_shape == (1, 8, 8)
    assert facts.classes[3] == "line 3"
