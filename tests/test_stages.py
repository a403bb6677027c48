"""Nothing is trained twice: with a store, plans share what they have in common, and end as they would without."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from beats_search.records.outcome import (
    EpochScore,
    Failed,
    Finished,
    Interval,
    Latency,
    Stopped,
    outcome_from_plain,
)
from beats_search.records.part import Part
from beats_search.records.plain import tagged
from beats_search.records.plan import AccumulationPlan, AugmentationPlan, TrainingPlan, TrialPlan
from beats_search.tensors.data import DataBundle
from beats_search.training.checkpoint import tensors_of
from beats_search.training.fit import Trained, fit
from beats_search.trial import keys as keys_module
from beats_search.trial import recipe
from beats_search.trial import run as trial_run
from beats_search.trial.keys import keys_of
from beats_search.trial.recipe import build_model, load_data, recovery, stage_seed
from beats_search.trial.run import Instruments, Reference, run_trial
from beats_search.trial.stages import StageTree, epochs_left
from beats_search.trial.store import Store

SGD = Part(name="sgd", settings=(("momentum", 0.9),))
PLAN = TrialPlan(
    dataset=Part(name="toys:stripes", settings=(("count", 240), ("classes", 10))),
    model=Part(name="toys:net", settings=(("width", 16),)),
    training=TrainingPlan(epochs=3, batch_size=16, optimizer=SGD, lr=0.05, device="cpu", precision="fp32"),
)
LIMIT = 10**9


def part(name: str, **settings: object) -> Part:
    """Return a part with its settings."""
    return Part(name=name, settings=tuple(settings.items()))  # type: ignore[arg-type]  # plain values


PRUNED = part("channel_pruning", ratio=0.5, round_to=4, recovery_epochs=2)
STEPS = part("channel_pruning", ratio=0.7, round_to=2, recovery_epochs=3, steps=3)
GLOBAL = part("channel_pruning", ratio=0.4, round_to=2, recovery_epochs=1, ranking="global", criterion="taylor")
TAUGHT = part("channel_pruning", ratio=0.5, round_to=4, recovery_epochs=1, distillation=0.6)
MASKED = part("magnitude_pruning", ratio=0.6, recovery_epochs=1)
PTQ = part("quantization", bits=8)
QAT = part("quantization", bits=4, mode="qat", recovery_epochs=1)
MIXED = part("quantization", bits="mixed", mode="qat", recovery_epochs=1)


def trained_for(epochs: int, plan: TrialPlan = PLAN, **settings: Any) -> TrialPlan:  # noqa: ANN401 - of a training
    """Return the plan with another training."""
    return replace(plan, training=replace(plan.training, epochs=epochs, **settings))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return an empty store."""
    return Store(tmp_path / "store", LIMIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What came out of the stages that train."""

    dense: Trained
    model: nn.Module
    reused: dict[str, float]


def tried(plan: TrialPlan, store: Store | None, keep_going: Callable[[EpochScore], bool] = lambda _: True) -> Tried:
    """Train and compress as a trial does."""
    data = load_data(plan.dataset)
    tree, model = StageTree(plan, data, store), build_model(plan, data)
    with tree.training(model) as begun:
        seed = stage_seed(plan, "training")
        dense = fit(model, data, plan.training, seed=seed, keep_going=keep_going, checkpoint=begun)
    compressed = tree.compressed(dense.model, recovery(plan, data)) if dense.stopped_at is None else dense.model
    return Tried(dense=dense, model=compressed, reused=tree.reused_seconds)


def digest(model: nn.Module) -> str:
    """Return a digest of a model's modules, modes, settings and tensors, and of which of these are trained."""
    found = hashlib.sha256(repr(model).encode())
    found.update(repr([module.training for module in model.modules()]).encode())
    for name, tensor in tensors_of(model).items():
        found.update(repr((name, tensor.dtype, tensor.stride(), tensor.requires_grad, tensor.grad)).encode())
        found.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def same(one: Tried, other: Tried) -> bool:
    """Tell whether two trials trained the same, to the bit and in all but time."""
    curves = [[repr(replace(score, seconds=0.0)) for score in each.dense.curve] for each in (one, other)]
    dense = digest(one.dense.model) == digest(other.dense.model)
    return dense and digest(one.model) == digest(other.model) and curves[0] == curves[1]


@pytest.fixture
def epochs_trained(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Return a count, kept up to date, of the epochs that were really trained, dense and in recoveries."""
    from beats_search.training import fit as fit_module

    counted, train = Counter[str](), fit_module._train_epoch

    def counting(run: Any, epoch: int) -> Tensor:  # noqa: ANN401 - private to the trainer
        counted["recovery" if run.plan.schedule.name == "cosine" else "dense"] += 1
        return train(run, epoch)

    monkeypatch.setattr(fit_module, "_train_epoch", counting)
    return counted


@pytest.mark.parametrize(
    "compression",
    [(PRUNED, PTQ), (STEPS,), (GLOBAL, QAT), (TAUGHT, MIXED), (MASKED, PTQ)],
    ids=lambda parts: "-".join(f"{each.name}-{len(each.settings)}" for each in parts),
)
def test_a_trial_ends_the_same_with_a_store_and_without(
    compression: tuple[Part, ...], store: Store, epochs_trained: Counter[str]
) -> None:
    """Without a store, with an empty one and with a full one the models are the same, and the last trains nothing."""
    plan = replace(PLAN, compression=compression)
    without, cold = tried(plan, None), tried(plan, store)
    epochs_trained.clear()
    warm = tried(plan, store)
    assert not epochs_trained
    assert same(without, cold)
    assert same(without, warm)
    assert without.reused == cold.reused == {}
    assert set(warm.reused) == {"training", "recovery"}
    assert warm.reused["training"] == pytest.approx(sum(score.seconds for score in cold.dense.curve))
    assert warm.reused["recovery"] > 0


@pytest.mark.parametrize(
    "settings",
    [
        {"ema": 0.9, "optimizer": Part(name="adam"), "lr": 0.01},
        {"accumulation": AccumulationPlan(window=4, trigger=1.3, local_error=0.3)},
        {"augmentation": AugmentationPlan(shift=1, flip=True), "batch_norm": "removed"},
    ],
    ids=["average", "method", "augmented"],
)
def test_recoveries_of_any_training_are_reused_to_the_bit(settings: dict[str, Any], store: Store) -> None:
    """Averages, windows and augmentation of a recovery leave the model that is stored as they leave a fresh one."""
    plan = replace(trained_for(2, **settings), compression=(PRUNED, QAT))
    tried(plan, store)
    assert same(tried(plan, store), tried(plan, None))


def test_plans_share_the_compression_that_they_have_in_common(store: Store, epochs_trained: Counter[str]) -> None:
    """Two plans with the same pruning and other bits train and recover once; the second ends as it would alone."""
    tried(replace(PLAN, compression=(PRUNED, PTQ)), store)
    assert epochs_trained == {"dense": 3, "recovery": 2}
    other = replace(PLAN, compression=(PRUNED, QAT))
    second = tried(other, store)
    assert epochs_trained == {"dense": 3, "recovery": 2 + 1}
    assert same(second, tried(other, None))


def test_a_longer_training_goes_on_from_a_shorter_one(store: Store, epochs_trained: Counter[str]) -> None:
    """With rates that begin alike, twelve epochs after four are eight more; shorter ones are read off."""
    tried(trained_for(4), store)
    longer = tried(trained_for(7), store)
    assert epochs_trained["dense"] == 7
    tried(trained_for(2), store)
    assert epochs_trained["dense"] == 7
    tried(trained_for(3), store)
    assert epochs_trained["dense"] == 7 + 1, "of three epochs two were stored"
    assert same(longer, tried(trained_for(7), None))


def test_a_stopped_training_is_continued(store: Store, epochs_trained: Counter[str]) -> None:
    """The last epoch before a stop is stored, whatever its number, and its score is the first one asked about."""
    plan, asked = trained_for(6), list[int]()
    stopped = tried(plan, store, lambda score: score.epoch < 3)
    assert stopped.dense.stopped_at == 3
    assert epochs_left(plan, store) == (3, 0)

    def note(score: EpochScore) -> bool:
        asked.append(score.epoch)
        return True

    resumed = tried(plan, store, note)
    assert asked == [3, 4, 5, 6]
    assert epochs_trained["dense"] == 6
    assert same(resumed, tried(plan, None))


def test_another_seed_shares_nothing(store: Store, epochs_trained: Counter[str]) -> None:
    """Under another seed, all is trained anew."""
    plan = replace(PLAN, compression=(PRUNED,))
    tried(plan, store)
    assert tried(replace(plan, seed=1), store).reused == {}
    assert epochs_trained == {"dense": 6, "recovery": 4}


def test_epochs_left_are_those_that_are_trained_then(store: Store, epochs_trained: Counter[str]) -> None:
    """What a plan would still train is told before each trial, and is what it trains."""
    plans = [
        replace(PLAN, compression=(PRUNED, QAT)),
        replace(PLAN, compression=(PRUNED, PTQ)),
        replace(trained_for(5), compression=(STEPS,)),
        replace(trained_for(5), compression=(STEPS, QAT)),
        replace(PLAN, compression=(part("channel_pruning", ratio=0.0, recovery_epochs=2), QAT)),
        replace(PLAN, compression=(PRUNED, QAT)),
    ]
    for plan in plans:
        epochs_trained.clear()
        told = epochs_left(plan, store)
        tried(plan, store)
        assert told == (epochs_trained["dense"], epochs_trained["recovery"])
        assert epochs_left(plan, store) == (0, 0)


def test_a_technique_that_need_not_train_is_known_after_its_first_trial(store: Store) -> None:
    """Where rounding keeps every channel there is no recovery, which a plan does not tell but the store does."""
    plan = replace(PLAN, compression=(part("channel_pruning", ratio=0.1, round_to=16, recovery_epochs=2),))
    assert epochs_left(plan, store) == (3, 2)
    tried(plan, store)
    assert epochs_left(plan, store) == (0, 0)


def test_epochs_left_computes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a model is built nor a schedule followed twice to tell what is left."""
    plan = replace(PLAN, compression=(PRUNED, QAT))
    epochs_left(plan, store)
    monkeypatch.setattr(recipe, "build_model", None)
    monkeypatch.setattr(keys_module, "make", None)
    monkeypatch.setattr(keys_module, "data_digest", None)
    assert epochs_left(trained_for(3, plan, lr=0.2), store) == (3, 3)


def test_a_store_that_forgets_in_between_is_made_up_for(store: Store) -> None:
    """Whichever entries go, damaged or evicted, the trial ends the same."""
    plan = replace(trained_for(3), compression=(PRUNED, QAT))
    without = tried(plan, None)
    tried(plan, store)
    for index, path in enumerate(sorted(store.folder.iterdir())):
        if index % 2:
            path.unlink(missing_ok=True)
        elif path.exists():  # an entry that nobody needs is not made again
            path.write_bytes(path.read_bytes()[:-5])
        assert same(tried(plan, store), without)


def test_a_store_without_room_changes_nothing(tmp_path: Path) -> None:
    """Where no entry can be kept, all is trained, and the trial ends the same."""
    store, plan = Store(tmp_path, 1), replace(PLAN, compression=(PRUNED,))
    for _ in range(2):
        last = tried(plan, store)
        assert last.reused == {}
    assert same(last, tried(plan, None))


def test_results_of_another_beginning_are_not_used(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network whose code changed and whose settings did not begins with other weights, so it shares nothing."""
    import toys

    plan, built = replace(PLAN, compression=(PRUNED,)), toys.net
    tried(plan, store)

    def other(input_shape: tuple[int, ...], classes: int, width: int = 8) -> nn.Module:
        network = built(input_shape, classes, width)
        nn.init.zeros_(network.get_parameter("0.bias"))
        return network

    before = keys_of(plan, load_data(plan.dataset))
    monkeypatch.setattr(toys, "net", other)
    assert keys_of(plan, load_data(plan.dataset)) == before
    assert tried(plan, store).reused == {}


def test_a_stage_computed_on_other_threads_is_another(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums over more threads are rounded otherwise, so what is large enough for threads is not shared."""
    tried(PLAN, store)
    monkeypatch.setattr(StageTree, "_threads", lambda *_: 7)
    assert tried(PLAN, store).reused == {}


class _Extra(nn.Flatten):
    def get_extra_state(self) -> str:
        return "a word"


def test_a_model_with_state_beside_its_tensors_is_not_stored(store: Store) -> None:
    """What cannot be stored whole is trained every time."""
    plan, model = replace(PLAN, compression=(PRUNED,)), nn.Sequential(_Extra(), nn.Linear(64, 10))
    tree = StageTree(plan, load_data(plan.dataset), store)
    with tree.training(model) as begun:
        assert begun is None
    trained: list[int] = []

    def train(given: nn.Module, epochs: int, /, **_: object) -> nn.Module:
        trained.append(epochs)
        return given

    for _ in range(2):
        assert tree._fine_tune(0, train, [])(model, 2) is model
    assert trained == [2, 2]
    assert not list(store.folder.iterdir())


REFERENCE = Reference(open=lambda: lambda: None)
LATENCY = Latency(
    median_ms=1.0,
    interval_ms=Interval(low=0.9, high=1.1),
    ratio=1.0,
    ratio_interval=Interval(low=0.9, high=1.1),
    raw_median_ms=1.0,
    blocks=9,
    calls=90,
    settled=True,
)


@pytest.mark.slow
def test_a_trial_tells_what_it_reused(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is the same with a store and without; of a second run only what was not stored is trained."""
    plan, calls = replace(PLAN, compression=(PRUNED,)), list[int]()
    monkeypatch.setattr(recipe, "fit", _counting(calls))
    monkeypatch.setattr(trial_run, "measure_latency", lambda *_, **__: LATENCY)
    kept = Instruments(store=store)
    first = run_trial(plan, tmp_path / "1", REFERENCE, instruments=kept)
    second = run_trial(plan, tmp_path / "2", REFERENCE, instruments=kept)
    assert isinstance(first, Finished), first
    assert isinstance(second, Finished), second
    assert (first.sha256, timeless(first.curve)) == (second.sha256, timeless(second.curve))
    assert calls == [2], "the recovery was trained once"
    assert first.reused_seconds == {}
    assert second.reused_seconds["training"] == pytest.approx(sum(score.seconds for score in first.curve))
    assert second.reused_seconds["recovery"] <= first.stage_seconds["compression"]
    assert list(second.stage_seconds) == list(first.stage_seconds)
    assert outcome_from_plain(tagged(second)) == second


def timeless(curve: Iterable[EpochScore]) -> list[EpochScore]:
    """Return a curve without its seconds."""
    return [replace(score, seconds=0.0) for score in curve]


def _counting(calls: list[int]) -> Callable[..., Trained]:
    def counted(model: nn.Module, data: DataBundle, plan: TrainingPlan, **settings: Any) -> Trained:  # noqa: ANN401
        calls.append(plan.epochs)
        return fit(model, data, plan, **settings)

    return counted


def test_a_stopped_trial_tells_what_it_reused(store: Store, tmp_path: Path) -> None:
    """A trial that goes on from a stopped one and is stopped again names the seconds that it did not spend."""
    plan, kept = trained_for(9), Instruments(store=store)
    first = run_trial(plan, tmp_path / "1", REFERENCE, lambda score: score.epoch < 2, kept)
    second = run_trial(plan, tmp_path / "2", REFERENCE, lambda score: score.epoch < 4, kept)
    assert isinstance(first, Stopped)
    assert isinstance(second, Stopped)
    assert (first.epoch, second.epoch) == (2, 4)
    assert second.curve[:2] == first.curve
    assert second.reused_seconds == {"training": pytest.approx(sum(score.seconds for score in first.curve))}
    assert outcome_from_plain(tagged(second)) == second


def test_a_record_from_before_reads_as_one_that_reused_nothing() -> None:
    """An outcome that was written without the field is read."""
    stopped = Stopped(epoch=1, reason="", curve=())
    written = dict(tagged(stopped))  # type: ignore[arg-type]  # a mapping
    del written["reused_seconds"]
    assert outcome_from_plain(written) == stopped


def test_a_device_that_is_not_here_fails_as_training(store: Store, tmp_path: Path) -> None:
    """With a store as without, the stage that is named is the one that wanted the device."""
    outcome = run_trial(
        trained_for(1, device="cuda:99"), tmp_path / "1", REFERENCE, instruments=Instruments(store=store)
    )
    assert isinstance(outcome, Failed)
    assert outcome.stage == "training"
