"""Usual: which values the reference of a space has for its knobs."""

from pathlib import Path

import pytest

from beats_search.app.spaces import read
from beats_search.app.usual import usual_values, values_of_reference
from beats_search.space.draw import Replay, draw, reference_plan
from beats_search.trial.keys import is_idle
from beats_search.trial.probe import count_macs

HEAD = """
name: usual
dataset: digits
model: {choice: [{name: mlp, width: {choice: [8, 16]}}, {name: cnn, width: 4, dense: {low: 8, high: 16, step: 8}}]}
training: {epochs: 1, lr: {low: 0.01, high: 1.0, log: true}, schedule: {choice: [cosine, constant]}}
objectives: {accuracy: maximize, latency_ms: minimize}
"""
PRUNING = "{name: channel_pruning, ratio: {low: 0.0, high: 0.5, step: 0.25}, recovery_epochs: {choice: [2, 0]}}"
FORCED = "{name: magnitude_pruning, ratio: {low: 0.25, high: 0.5}}"
BITS = "{name: quantization, bits: {choice: [8, 4, 32]}}"


@pytest.mark.parametrize("techniques", [(PRUNING, BITS), (BITS,), (FORCED, BITS), (FORCED, PRUNING)])
def test_what_is_usual_does_what_the_reference_does(techniques: tuple[str, ...], tmp_path: Path) -> None:
    """Model and training are the reference's, and techniques that can do nothing are set to do that."""
    path = tmp_path / "space.yaml"
    path.write_text(HEAD + f"compression: [{', '.join(techniques)}]\n", encoding="utf-8")
    space = read(path, ())
    reference = reference_plan(space, count_macs)
    found = dict(usual_values(space, reference))
    assert found["training.lr"] == pytest.approx(0.1)
    forced = [index for index, technique in enumerate(techniques) if technique is FORCED]
    if forced:
        assert "compression.magnitude_pruning.ratio" not in found
        found["compression.magnitude_pruning.ratio"] = 0.25
    plan = draw(space, Replay(found))
    assert (plan.model, plan.training) == (reference.model, reference.training)
    assert [is_idle(part) for part in plan.compression] == [index not in forced for index in range(len(techniques))]
    assert values_of_reference(space, reference) == (None if forced else found)


@pytest.mark.parametrize(
    "more",
    [
        "compression: [{name: quantization, bits: 8}]",
        "compression: [{name: quantization, bits: {choice: [8, 4]}}]",
        "runtime: {name: onnxruntime, linear_bits: 8}",
    ],
)
def test_a_space_that_cannot_draw_the_reference_has_no_values_for_it(more: str, tmp_path: Path) -> None:
    """Where every plan is compressed, or computed in less, what the reference came to is known of no plan."""
    path = tmp_path / "space.yaml"
    path.write_text(HEAD + more + "\n", encoding="utf-8")
    space = read(path, ())
    reference = reference_plan(space, count_macs)
    assert values_of_reference(space, reference) is None
    assert usual_values(space, reference)["training.lr"] == pytest.approx(0.1)
