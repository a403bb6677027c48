"""The throughput benchmark: its arithmetic, its arguments and its clocks. Nothing of note is trained."""

import gzip
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from beats_search.records.plain import from_plain, to_plain
from beats_search.records.plan import TrainingPlan
from beats_search.tensors.data import DataBundle, Split
from beats_search.training.fit import fit
from throughput_arguments import Settings, read_request
from throughput_files import find_files, unpacked
from throughput_networks import as_in_the_texts, build
from throughput_ours import Timing
from throughput_records import CONTESTANTS, Measurement, ModelName, Task
from throughput_source import Order
from throughput_stopwatch import Stopwatch
from throughput_summary import Summary, compare_accuracy, spread, summarize
from throughput_table import table
from training_throughput import tasks_of

SETTINGS = Settings(
    models=("mlp", "cnn"), contestants=("source", "ours"), rounds=6, epochs=2, images=640, threads=1, seed=3
)
NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def measurement(contestant: str, seed: int = 0, training: float = 1.0, accuracy: float = 0.9) -> Measurement:
    """Return a measurement of an MLP that took `training` seconds, and half of that to validate."""
    task = Task(contestant=contestant, model="mlp", seed=seed, epochs=2, images=640, threads=1, folder="data")
    return Measurement(
        task=task,
        training_seconds=training,
        validation_seconds=training / 2,
        accuracy=accuracy,
        initial=f"weights of seed {seed}",
        peak_mb=900.0,
        worker_peak_mb=0.0,
    )


def summaries(speedup: float) -> dict[str, Summary]:
    """Return the summaries of three rounds on a machine of changing speed, ours always `speedup` times as fast."""
    rounds = [(seed, seconds) for seed, seconds in enumerate((1.0, 4.0, 2.0))]
    source = [measurement("source", seed, seconds) for seed, seconds in rounds]
    ours = [measurement("ours", seed, seconds / speedup) for seed, seconds in rounds]
    return {summary.contestant: summary for summary in summarize([*ours, *source], baseline_mb=800.0)}


def images_in(folder: Path, pack: Callable[[bytes], bytes] = bytes, suffix: str = "") -> Path:
    """Write four files of nine bytes and return their folder."""
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / f"{name}{suffix}").write_bytes(pack(b"published"))
    return folder


@given(st.lists(st.floats(min_value=0.1, max_value=1e6), min_size=1))
def test_a_spread_lies_between_its_extremes(values: list[float]) -> None:
    """The median is between the smallest and the largest value, whatever the order of the values."""
    found = spread(values)
    assert found.low <= found.median <= found.high
    assert found == spread(values[::-1])
    assert (found.n, found.low, found.high) == (len(values), min(values), max(values))


@pytest.mark.parametrize("speedup", [1.0, 8.0])
def test_ratios_are_taken_round_by_round(speedup: float) -> None:
    """A machine that slows down for a round changes the rates, not the ratios."""
    ours = summaries(speedup)["ours"]
    assert (ours.training_ratio.low, ours.training_ratio.high) == (speedup, speedup)
    assert (ours.whole_ratio.low, ours.whole_ratio.high) == (speedup, speedup)
    assert ours.training_images_per_second.high > 3 * ours.training_images_per_second.low


def test_rates_count_the_images_of_all_epochs() -> None:
    """Two epochs of 640 images in 4 s of training and 2 s of validation are 320 and 213 images a second."""
    taken = measurement("source", training=4.0)
    assert taken.training_rate == 320
    assert taken.whole_rate == pytest.approx(1280 / 6)


def test_memory_is_told_over_the_baseline() -> None:
    """What importing torch takes anyway is taken off."""
    assert summaries(1.0)["source"].peak_over_baseline_mb == 100.0


def test_a_contestant_without_a_reference_is_refused() -> None:
    """A ratio needs the source texts' loop of the same round."""
    with pytest.raises(ValueError, match="needs a measurement of source"):
        summarize([measurement("source", seed=0), measurement("ours", seed=1)], baseline_mb=0.0)


def test_unequal_beginnings_are_refused() -> None:
    """Contestants that began with other weights are no comparison."""
    other = replace(measurement("ours"), initial="other weights")
    with pytest.raises(ValueError, match="equal weights"):
        summarize([measurement("source"), other], baseline_mb=0.0)


@given(st.integers(-40, 40))
def test_accuracies_are_equal_within_their_spread(shift: int) -> None:
    """A contestant is within noise exactly when its mean differs by no more than rounds do."""
    reference = [0.5, 0.625, 0.75]  # a standard deviation of 0.125
    check = compare_accuracy([value + shift / 128 for value in reference], reference)
    assert check.within_noise == (abs(shift) <= 16)
    assert check.mean_difference == shift / 128


def test_one_round_cannot_tell_noise() -> None:
    """A single round has no spread, so nothing is said of it."""
    check = compare_accuracy([0.9], [0.8])
    assert check.noise is check.within_noise is None


def test_a_round_holds_every_contest_once_in_an_order_of_its_own() -> None:
    """Each round runs all pairs on one seed; rounds differ in order, equal seeds do not."""
    tasks = list(tasks_of(SETTINGS, Path("data")))
    rounds = [tasks[start : start + 4] for start in range(0, len(tasks), 4)]
    orders = [tuple((task.model, task.contestant) for task in one) for one in rounds]
    assert all(len(set(order)) == 4 for order in orders)
    assert [{task.seed for task in one} for one in rounds] == [{3}, {4}, {5}, {6}, {7}, {8}]
    assert len(set(orders)) > 1
    assert tasks == list(tasks_of(SETTINGS, Path("data")))


def test_a_measurement_survives_the_way_between_processes() -> None:
    """What a process prints reads back as what it measured."""
    taken = measurement("ours", accuracy=0.98)
    assert from_plain(Measurement, json.loads(json.dumps(to_plain(taken)))) == taken


def test_the_table_names_all_and_says_what_is_beyond_noise() -> None:
    """Every contestant has a line, and accuracies that differ by more than their spread stand out."""
    accuracies = {"source": (0.9, 0.91), "ours": (0.9, 0.912), "ours_beats": (0.5, 0.51)}
    measured = [measurement(name, seed, accuracy=pair[seed]) for name, pair in accuracies.items() for seed in (0, 1)]
    lines = table(summarize(measured, baseline_mb=0.0), 0.0).splitlines()
    assert [line.split()[1] for line in lines[1:4]] == list(accuracies)
    assert [line.split(":")[0] for line in lines if "MORE THAN" in line] == ["mlp ours_beats"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--images", "50001"], "at most 50000"),
        (["--images", "129"], "no rest of 1"),
        (["--images", "many"], "--images"),
        (["--rounds", "0"], "at least 1, got 0"),
        (["--contestants", "keras"], "invalid choice: 'keras'"),
        (["--models", "resnet"], "invalid choice: 'resnet'"),
        (["--date", "yesterday"], "--date"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: Sequence[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong argument ends the script with code 2 and says what is allowed."""
    images_in(tmp_path / "mnist")
    with pytest.raises(SystemExit) as ended:
        read_request(["--data", str(tmp_path), *arguments])
    assert ended.value.code == 2
    assert expected in capsys.readouterr().err


def test_missing_data_say_how_to_get_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without MNIST the script names the argument and torchvision's download."""
    with pytest.raises(SystemExit):
        read_request(["--data", str(tmp_path / "nowhere"), "--contestants", "ours"])
    told = capsys.readouterr().err
    assert str(tmp_path / "nowhere") in told
    assert "--data DIR" in told
    assert "MNIST('data', download=True)" in told


def test_missing_lightning_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without Lightning its contestants are refused with the extra that brings it, and the others run."""
    images_in(tmp_path / "mnist")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    alone = read_request(["--data", str(tmp_path), "--contestants", "ours"])
    with pytest.raises(SystemExit):
        read_request(["--data", str(tmp_path), "--contestants", "ours", "lightning"])
    assert "[benchmarks]" in capsys.readouterr().err
    assert alone.settings.contestants == ("source", "ours")


@pytest.mark.parametrize("place", ["MNIST/raw", "mnist", "."])
@pytest.mark.parametrize(("pack", "suffix"), [(bytes, ""), (gzip.compress, ".gz")])
def test_files_are_unpacked_where_torchvision_looks(
    place: str, pack: Callable[[bytes], bytes], suffix: str, tmp_path: Path
) -> None:
    """Packed or not, in any of three places, the files come out plain in MNIST/raw, for as long as needed."""
    images_in(tmp_path / "data" / place, pack, suffix)
    with unpacked(find_files(tmp_path / "data")) as folder:
        contents = {name: (folder / "MNIST" / "raw" / name).read_bytes() for name in NAMES}
    assert contents == dict.fromkeys(NAMES, b"published")
    assert not folder.exists()


@given(st.lists(st.tuples(st.sampled_from(["training", "validation"]), st.integers(0, 100))))
def test_a_stopwatch_loses_no_time(switches: list[tuple[str, int]]) -> None:
    """Training and validation add up to the time that passed, and each gets its own share."""
    now = 0.0
    watch = Stopwatch(clock=lambda: now)
    expected = {"training": 0, "validation": 0}
    for activity, seconds in switches:
        watch.switch("training" if activity == "training" else "validation")
        now += seconds
        expected[activity] += seconds
    watch.switch("training")
    assert (watch.training, watch.validation) == (expected["training"], expected["validation"])


def test_everybody_sees_the_images_in_the_order_of_fit() -> None:
    """The order for the other loops is what `fit` deals from the same seed, in every epoch."""
    seen: list[Tensor] = []
    count, seed = 96, 5
    split = Split(inputs=torch.arange(count)[:, None] / 128, labels=torch.arange(count) % 2)
    data = DataBundle(train=split, validation=split, test=split, classes=("even", "odd"))
    model = nn.Sequential(nn.Linear(1, 2))
    model[0].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]) if layer.training else None)
    fit(model, data, TrainingPlan(epochs=2, batch_size=64, device="cpu", precision="fp32"), seed=seed)
    order = Order(count, seed)
    dealt = [index / 128 for _ in range(2) for index in order]
    assert torch.cat(seen).flatten().tolist() == dealt


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_the_texts_network_is_the_package_s_own(model: ModelName) -> None:
    """Both compute the same logits from equal weights, and none of the weights is shared."""
    ours = build(model, seed=7)
    texts = as_in_the_texts(model, ours)
    images = torch.randn(5, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(texts(images), ours(images))
    owned = {parameter.data_ptr() for parameter in ours.parameters()}
    assert owned.isdisjoint(parameter.data_ptr() for parameter in texts.parameters())


def test_training_and_validation_are_told_apart_in_fit(stripes: DataBundle) -> None:
    """The seams of `fit` charge each epoch's batches in inference mode, and nothing else, to validation."""
    ticks = iter(range(1000))
    watch = Stopwatch(clock=lambda: float(next(ticks)))
    timing = Timing(watch)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    plan = TrainingPlan(epochs=3, batch_size=64, device="cpu")
    trained = fit(model, stripes, plan, seed=0, pace=timing.pace, keep_going=timing.keep_going)
    assert (watch.training, watch.validation) == (3.0, 3.0)
    assert math.isfinite(trained.curve[-1].accuracy)


def test_every_contestant_is_of_a_known_kind() -> None:
    """The reference is among the contestants, and a name begins with the loop that it runs."""
    kinds = {"source": "SourceLoop", "lightning": "LightningLoop", "ours": "OurLoop"}
    assert {name: type(loop).__name__ for name, loop in CONTESTANTS.items()} == {
        name: kinds[name.partition("_")[0]] for name in CONTESTANTS
    }
