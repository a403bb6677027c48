"""Plans, numbers and results as a person reads them."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_runs import finished, plan, realistic_run, record, run_of

from beats_search.records.outcome import Failed, Stopped
from beats_search.records.part import Part, Setting
from beats_search.records.plan import AccumulationPlan, AugmentationPlan
from beats_search.records.run import TrialRecord
from beats_search.report.answer import AFFORDABLE_LOSS, answer
from beats_search.report.measures import counted, duration, measured, significant, spoken, times
from beats_search.report.words import accumulation_in_words, part_in_words, plan_in_words, technique_in_words

FAILED = Failed(stage="build", reason="out of memory")
_SCALED = "local error 0.123, anneal 0, scaled to the norm"


def test_a_plan_reads_as_model_training_and_compression() -> None:
    """A plan's words name the model, the training, the window, and what each technique does."""
    drawn = plan(width=32, ratio=0.5, bits=8, lr=0.05, window=4)
    words = "resnet width 32; 12 epochs of sgd at lr 0.05, cosine; window 4; channel_pruning 50 %; 8 bits, qat"
    assert plan_in_words(drawn) == words


def test_what_does_nothing_is_left_out_of_the_words() -> None:
    """Full bits, a ratio of zero, a window of one and the constant schedule are not mentioned."""
    drawn = plan(ratio=0.0, bits=32, window=1)
    bare = replace(drawn, training=replace(drawn.training, schedule=Part(name="constant"), epochs=1))
    assert plan_in_words(bare) == "resnet width 64; 1 epoch of sgd at lr 0.05"


def test_a_model_is_told_by_what_is_unusual_about_it() -> None:
    """Activation, dropout and Beats layers are mentioned where they are not what goes without saying."""
    usual = Part(name="mlp", settings=(("activation", "relu"), ("dropout", 0.0), ("width", 8)))
    other = Part(name="mlp", settings=(("activation", "tanh"), ("dropout", 0.2), ("width", 8)))
    assert part_in_words(usual) == "mlp width 8"
    assert part_in_words(other) == "mlp activation tanh, dropout 0.2, width 8"


@pytest.mark.parametrize(("epochs", "words"), [((50, 75), "milestones at 50, 75"), ((3,), "milestones at 3")])
def test_milestones_are_named_by_their_epochs(epochs: tuple[int, ...], words: str) -> None:
    """Plans that lower the rate at different epochs read differently."""
    drawn = plan()
    schedule = Part(name="milestones", settings=(("epochs", epochs), ("gamma", 0.1)))
    told = plan_in_words(replace(drawn, training=replace(drawn.training, schedule=schedule)))
    assert told.endswith(f"at lr 0.05, {words}")


def test_an_unknown_technique_reads_as_its_name_and_settings() -> None:
    """A part that the words know nothing of is written with all its settings."""
    part = Part(name="folding", settings=(("depth", 2), ("layers", ("fc1", "fc2"))))
    assert plan_in_words(replace(plan(), compression=(part,))).endswith("; folding depth 2, layers (fc1, fc2)")


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("channel_pruning", {"criterion": "magnitude", "ranking": "per_layer", "steps": 1, "distillation": 0.0}, ""),
        ("channel_pruning", {"criterion": "taylor", "ranking": "global", "steps": 3}, ", taylor, global, 3 steps"),
        ("channel_pruning", {"layers": ("*",)}, ""),
        ("channel_pruning", {"layers": ("conv1", "fc*"), "ranking": "global"}, " of conv1, fc*, global"),
        ("channel_pruning", {"distillation": 0.51234, "temperature": 4.0}, ", distillation 0.512"),
        ("channel_pruning", {"distillation": 1, "temperature": 2}, ", distillation 1, temperature 2"),
        ("channel_pruning", {"temperature": 2.0, "recovery_epochs": 3, "round_to": 8}, ""),
        ("magnitude_pruning", {"scope": "per_layer"}, ""),
        ("magnitude_pruning", {"scope": "global"}, ", global"),
    ],
)
def test_a_pruning_is_told_by_what_is_unusual_about_it(name: str, settings: dict[str, Setting], words: str) -> None:
    """How channels are chosen and how the network recovers is named where it is not what goes without saying."""
    part = Part(name=name, settings=(("ratio", 0.5), *settings.items()))
    assert plan_in_words(replace(plan(), compression=(part,))).endswith(f"; {name} 50 %{words}")


def test_augmentation_and_another_runtime_are_named() -> None:
    """Random changes and a runtime that is not the usual one tell two plans apart."""
    drawn = plan()
    augmented = replace(drawn.training, augmentation=AugmentationPlan(shift=1, flip=True, rotation=10.0))
    words = plan_in_words(replace(drawn, training=augmented, runtime=Part(name="openvino")))
    assert words.endswith("; shifted by 1 px, flipped, rotated by 10°; on openvino")


@pytest.mark.parametrize(
    ("accumulation", "words"),
    [
        (AccumulationPlan(window=4, trigger=1.6, local_error=0.2), "window 4, trigger 1.6, local error 0.2"),
        (AccumulationPlan(window=8, trigger=1.23456, scope="global"), "window 8, trigger 1.23, scope global"),
        (AccumulationPlan(window=2, mode="sum", top_k=0.125), "window 2, sum, top 12.5 %"),
        (AccumulationPlan(local_error=0.123456, anneal=0.0, local_scale="norm"), _SCALED),
    ],
)
def test_accumulation_is_told_in_short(accumulation: AccumulationPlan, words: str) -> None:
    """Each setting of the method that does something is named, with 3 significant digits."""
    drawn = plan()
    told = plan_in_words(replace(drawn, training=replace(drawn.training, accumulation=accumulation)))
    assert accumulation_in_words(accumulation) == words
    assert f"cosine; {words}" in told


@pytest.mark.parametrize(
    "accumulation",
    [
        AccumulationPlan(trigger=1.6, scope="global", mode="sum"),
        AccumulationPlan(anneal=0.0, local_scale="norm"),
    ],
    ids=["window of one", "no local error"],
)
def test_accumulation_that_does_nothing_has_no_words(accumulation: AccumulationPlan) -> None:
    """In a window of one nothing is triggered or summed, and without local errors nothing is annealed or scaled."""
    assert accumulation_in_words(accumulation) == ""


def test_settings_against_overfitting_are_told() -> None:
    """Batch norms, smoothed labels, clipping and the average of weights are named where they are in use."""
    drawn = plan()
    training = replace(drawn.training, batch_norm="added", label_smoothing=0.1, clip=1.5, ema=0.999)
    told = plan_in_words(replace(drawn, training=training))
    assert told.endswith("cosine; batch norm added, label smoothing 0.1, clip 1.5, ema 0.999")


@given(st.floats(min_value=0.001, max_value=0.999999))
def test_a_decay_near_one_is_never_told_as_one(decay: float) -> None:
    """A decay keeps 3 digits of what it lacks to 1, however little that is."""
    drawn = plan()
    told = plan_in_words(replace(drawn, training=replace(drawn.training, ema=decay)))
    assert 1 - float(told.rpartition(" ")[2]) == pytest.approx(1 - decay, rel=0.0051)


@given(st.floats(min_value=1e-6, max_value=1e9), st.integers(min_value=1, max_value=6))
def test_significant_digits_keep_the_value(value: float, digits: int) -> None:
    """A rounded number is off by half a unit of its last digit at most, and has no exponent."""
    written = significant(value, digits)
    assert "e" not in written
    assert float(written) == pytest.approx(value, rel=0.5001 * 10 ** (1 - digits))


def test_what_is_not_finite_reads_as_a_dash() -> None:
    """No number that a person reads says nan or inf."""
    spellings = [
        measured("accuracy", math.nan),
        significant(math.inf),
        times(None),
        times(math.nan),
        duration(math.inf),
    ]
    assert set(spellings) == {"–"}


def test_a_counted_value_is_spoken_without_an_interval() -> None:
    """Only what has an uncertainty is followed by brackets."""
    outcome = finished(accuracy=0.5, latency_ms=0.2, size_kb=1500.0)
    assert (spoken("size_kb", outcome), spoken("latency_ms", outcome)) == (
        "size 1.50 MB",
        "latency 0.200 ms [0.194, 0.208]",
    )
    assert [counted(value) for value in (999, 12_345, 6.7e9)] == ["999", "12.3 k", "6.70 G"]


def test_the_answer_is_the_fastest_within_one_point() -> None:
    """Of the faster models that lose a point at most, the headline names the fastest."""
    run = run_of(
        record(0, finished(accuracy=0.985, latency_ms=0.4)),
        record(1, finished(accuracy=0.985 - AFFORDABLE_LOSS, latency_ms=0.08, size_kb=31.0)),
        record(2, finished(accuracy=0.984, latency_ms=0.2)),
        record(3, finished(accuracy=0.9, latency_ms=0.01)),
    )
    found = answer(run)
    assert found.trial == 1
    assert "trial 1: 5.0× faster than the reference, 0.975 against 0.985, 31.0 kB." in found.text


def test_the_answer_follows_the_objective() -> None:
    """Where size is traded, the headline speaks of the smallest model."""
    run = run_of(
        record(0, finished(accuracy=0.98, size_kb=300.0)),
        record(1, finished(accuracy=0.98, size_kb=100.0)),
        over=("accuracy", "size_kb"),
    )
    assert answer(run).text.startswith("The smallest model that loses no more than 1 point")
    assert "3.0× smaller than the reference" in answer(run).text


def test_an_overlap_of_intervals_is_said() -> None:
    """A gain that the intervals do not separate is called possible noise."""
    run = run_of(record(0, finished(0.98, 0.200)), record(1, finished(0.98, 0.199)))
    assert answer(run).text.endswith("overlap, so this may be noise.")


def test_a_loss_of_more_than_a_point_is_said() -> None:
    """Where every faster model loses too much, the headline names the best of them and its loss."""
    run = run_of(record(0, finished(0.98, 0.4)), record(1, finished(0.95, 0.1)), record(2, finished(0.9, 0.05)))
    found = answer(run)
    assert found.trial == 1
    assert "4.0× faster, and 3.0 points less accurate (0.950 against 0.980)" in found.text


@pytest.mark.parametrize(
    ("trials", "says"),
    [
        ((), "No trial has run yet."),
        ((record(0, FAILED), record(1, Stopped(epoch=1, reason="slow", curve=()))), "1 failed, 1 stopped"),
        ((record(0, FAILED), record(1, finished())), "The reference did not finish"),
        ((record(0, finished()),), "No model on the front is faster than the reference."),
        (
            (record(0, finished(size_kb=900.0)), record(1, finished(size_kb=700.0))),
            "The nearest is trial 1 with size 700 kB.",
        ),
    ],
)
def test_where_there_is_no_result_the_answer_says_why(trials: tuple[TrialRecord, ...], says: str) -> None:
    """No trial, none finished, no reference, nothing faster, no trial within the limits: each has its sentence."""
    assert says in answer(replace(run_of(), trials=trials)).text


def test_a_realistic_run_has_an_answer_on_its_front() -> None:
    """The trial of the headline is a finished one."""
    run = realistic_run()
    assert answer(run).trial in {trial.number for trial, _ in run.finished()}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ((("bits", 4), ("mode", "qat"), ("recovery_epochs", 1)), "4 bits, qat"),
        ((("bits", 4), ("mode", "ptq")), "4 bits"),
        ((("average_bits", 3.0), ("bits", "mixed"), ("mode", "qat")), "3 bits on average, qat"),
        ((("bits", 32), ("mode", "qat"), ("recovery_epochs", 1)), ""),
    ],
)
def test_quantization_tells_bits_and_mode(settings: tuple[tuple[str, Setting], ...], words: str) -> None:
    """What was learned in training is told from what was rounded after it; 32 bits are not mentioned."""
    assert technique_in_words(Part(name="quantization", settings=settings)) == words
