"""Records: values that cannot exist wrong, and that survive being written down."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beats_search.records.objective import Constraint, Objective
from beats_search.records.outcome import (
    EpochScore,
    Failed,
    Finished,
    Footprint,
    Interval,
    Latency,
    Stopped,
    TrialOutcome,
    outcome_from_plain,
)
from beats_search.records.part import Part
from beats_search.records.plain import from_plain, tagged, to_plain
from beats_search.records.plan import AccumulationPlan, TrainingPlan, TrialPlan
from beats_search.records.search_plan import SearchPlan

PLAN = TrialPlan(
    dataset=Part(name="digits"),
    model=Part(name="resnet", settings=(("width", 32), ("blocks", 1))),
    training=TrainingPlan(epochs=3, lr=0.1),
    compression=(Part(name="channel_pruning", settings=(("ratio", 0.5), ("layers", ("fc1", "layer2.*")))),),
)
LATENCY = Latency(
    median_ms=0.5,
    interval_ms=Interval(low=0.4, high=0.6),
    ratio=0.25,
    ratio_interval=Interval(low=0.2, high=0.3),
    raw_median_ms=0.55,
    blocks=7,
    calls=700,
    settled=True,
)
CURVE = (EpochScore(epoch=1, train_loss=0.5, accuracy=0.9, seconds=1.5),)
FINISHED = Finished(
    accuracy=0.97,
    accuracy_interval=Interval(low=0.94, high=0.98),
    latency=LATENCY,
    footprint=Footprint(size_kb=12.5, parameters=3000, macs=90000),
    executed_as="int8",
    sha256="00",
    curve=CURVE,
    stage_seconds={"training": 2.0},
)


def test_plan_survives_json() -> None:
    """A plan read back from JSON is equal and has the same fingerprint."""
    again = from_plain(TrialPlan, json.loads(json.dumps(to_plain(PLAN))))
    assert again == PLAN
    assert again.fingerprint() == PLAN.fingerprint()


@pytest.mark.parametrize(
    "outcome", [FINISHED, Stopped(epoch=2, reason="no hope", curve=CURVE), Failed(stage="export", reason="no")]
)
def test_outcome_survives_json(outcome: TrialOutcome) -> None:
    """Every kind of outcome read back from JSON is equal."""
    assert outcome_from_plain(json.loads(json.dumps(tagged(outcome)))) == outcome


def test_number_that_is_none_is_written_as_null() -> None:
    """A NaN is null on paper and NaN again when read."""
    score = EpochScore(epoch=1, train_loss=math.nan, accuracy=0.1, seconds=1.0)
    plain = to_plain(score)
    assert json.loads(json.dumps(plain, allow_nan=False))["train_loss"] is None
    assert math.isnan(from_plain(EpochScore, plain).train_loss)


def test_part_reads_as_a_user_writes_it() -> None:
    """A part becomes a mapping of its name and its settings."""
    assert to_plain(PLAN.model) == {"name": "resnet", "blocks": 1, "width": 32}


@pytest.mark.parametrize(
    "other",
    [
        replace(PLAN, seed=1),
        replace(PLAN, training=replace(PLAN.training, lr=0.2)),
        replace(PLAN, model=Part(name="resnet", settings=(("width", 64), ("blocks", 1)))),
        replace(PLAN, compression=()),
    ],
)
def test_different_plans_have_different_fingerprints(other: TrialPlan) -> None:
    """Anything that changes a trial changes its fingerprint."""
    assert other.fingerprint() != PLAN.fingerprint()


def quantized(**settings: float | str) -> TrialPlan:
    """Return a plan that quantizes."""
    return replace(PLAN, compression=(Part(name="quantization", settings=tuple(settings.items())),))


def pruned(**settings: float | str) -> TrialPlan:
    """Return a plan that prunes."""
    return replace(PLAN, compression=(Part(name="channel_pruning", settings=tuple(settings.items())),))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (quantized(bits=32), quantized(bits=32, mode="qat", recovery_epochs=3, average_bits=5)),
        (quantized(bits=4, average_bits=3), quantized(bits=4, average_bits=5)),
        (pruned(ratio=0.0), pruned(ratio=0.0, ranking="global", recovery_epochs=3)),
        (pruned(ratio=0.5, temperature=2.0), pruned(ratio=0.5, temperature=4.0)),
    ],
)
def test_settings_without_an_effect_make_no_other_plan(one: TrialPlan, other: TrialPlan) -> None:
    """Techniques that do the same for any model have one fingerprint."""
    assert one.fingerprint() == other.fingerprint()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (quantized(bits="mixed", average_bits=3), quantized(bits="mixed", average_bits=5)),
        (quantized(bits=4, mode="qat", recovery_epochs=1), quantized(bits=4, mode="qat", recovery_epochs=2)),
        (pruned(ratio=0.5), pruned(ratio=0.5, ranking="global")),
        (pruned(ratio=0.5, distillation=0.5, temperature=2.0), pruned(ratio=0.5, distillation=0.5, temperature=4.0)),
    ],
)
def test_settings_with_an_effect_make_another_plan(one: TrialPlan, other: TrialPlan) -> None:
    """The same settings count where they do something."""
    assert one.fingerprint() != other.fingerprint()


def test_order_of_settings_does_not_matter() -> None:
    """Two parts with the same settings are equal, whatever the order they were written in."""
    one, other = Part(name="a", settings=(("x", 1), ("y", 2))), Part(name="a", settings=(("y", 2), ("x", 1)))
    assert one == other


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: Interval(low=2.0, high=1.0), "low <= high"),
        (lambda: TrainingPlan(epochs=0), "at least 1"),
        (lambda: TrainingPlan(epochs=1, lr=0.0), "above 0"),
        (lambda: AccumulationPlan(window=0), "at least 1"),
        (lambda: SearchPlan(trials=0), "at least 1"),
        (lambda: SearchPlan(timeout=-1.0), "above 0"),
        (lambda: Objective(name="accuracy", direction="minimize"), "maximize"),
        (lambda: Objective(name="speed", direction="minimize"), "one of"),
        (lambda: Constraint(name="speed", sign="<=", bound=1.0), "one of"),
    ],
)
def test_wrong_values_are_refused_with_the_rule(make: object, rule: str) -> None:
    """A record that would be wrong cannot be made, and the message states the rule."""
    with pytest.raises(ValueError, match=rule):
        make()  # type: ignore[operator]  # a lambda from the table


@given(bound=st.floats(0, 100), value=st.floats(0, 100))
def test_constraint_holds_exactly_up_to_its_bound(bound: float, value: float) -> None:
    """A limit holds when the value is on the right side of it or on it."""
    outcome = replace(FINISHED, footprint=Footprint(size_kb=value, parameters=1, macs=1))
    assert Constraint(name="size_kb", sign="<=", bound=bound).holds(outcome) == (value <= bound)
    assert Constraint(name="size_kb", sign=">=", bound=bound).holds(outcome) == (value >= bound)


def test_unknown_field_is_refused() -> None:
    """Data with a field that a record does not have is no such record."""
    with pytest.raises(TypeError, match="has no field"):
        from_plain(EpochScore, {"epoch": 1, "speed": 3})
