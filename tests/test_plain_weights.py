"""Plain weights: networks that compute their weights are compressed as those that hold them."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from beats_search.records.part import Part
from beats_search.records.plan import TrainingPlan, TrialPlan
from beats_search.runtimes.onnxruntime import OnnxRuntime
from beats_search.tensors.plain_weights import with_plain_weights
from beats_search.tensors.seams import Bench
from beats_search.trial.recipe import compress, recovery

TECHNIQUES = {
    "ptq": Part(name="quantization"),
    "mixed": Part(name="quantization", settings=(("bits", "mixed"),)),
    "qat": Part(name="quantization", settings=(("mode", "qat"), ("recovery_epochs", 1))),
    "narrower": Part(name="channel_pruning", settings=(("ratio", 0.5), ("round_to", 2), ("recovery_epochs", 1))),
    "zeros": Part(name="magnitude_pruning", settings=(("ratio", 0.5), ("recovery_epochs", 1))),
}


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(128, 10))
    model.eval()
    return model


def _normed() -> nn.Sequential:
    """Return a network of which one layer has a weight norm, one a spectral norm, and one is as usual."""
    model = _net()
    weight_norm(model[0])
    spectral_norm(model[3])
    model.eval()
    return model


def test_the_function_stays_and_so_does_the_argument() -> None:
    """The copy computes the same from weights that it holds; the model still computes and learns its own."""
    model, images = _normed(), torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        expected = model(images)
        plain = with_plain_weights(model)
        assert torch.equal(plain(images), expected)
        assert torch.equal(model(images), expected)
    assert [type(module) for module in plain.modules()] == [type(module) for module in _net().modules()]
    assert {name for name, _ in plain.named_parameters()} == {name for name, _ in _net().named_parameters()}
    assert parametrize.is_parametrized(model[0])
    assert {name for name, _ in model.named_parameters()} == {name for name, _ in _normed().named_parameters()}


def test_what_is_frozen_and_what_is_shared_stays_so() -> None:
    """A weight learns where its parts did, and one that two layers hold is one afterwards."""
    one, other, frozen = (nn.Linear(4, 4) for _ in range(3))
    other.weight = one.weight
    before = one.weight.detach().clone()
    for layer in (one, other):
        parametrize.register_parametrization(layer, "weight", _Doubled())
    weight_norm(frozen).requires_grad_(requires_grad=False)
    plain = with_plain_weights(nn.Sequential(one, other, frozen))
    weights = [plain.get_parameter(f"{index}.weight") for index in range(3)]
    assert weights[0] is weights[1]
    assert torch.equal(weights[0], 2 * before)
    assert [weight.requires_grad for weight in weights] == [True, True, False]


def test_a_plain_model_is_not_copied() -> None:
    """A network that holds all its weights is returned as it is."""
    model = _net()
    assert with_plain_weights(model) is model


@pytest.mark.slow
@pytest.mark.parametrize("technique", TECHNIQUES.values(), ids=TECHNIQUES.keys())
def test_every_technique_takes_networks_with_weight_norm(technique: Part, bench: Bench, tmp_path: Path) -> None:
    """What it makes of them can be exported, and depends on how the weights were computed in nothing."""
    plan = TrialPlan(
        dataset=Part(name="digits"),
        model=Part(name="cnn"),
        training=TrainingPlan(epochs=1, batch_size=32, lr=0.05),
        compression=(technique,),
    )
    model, images = _normed(), bench.data.train.inputs[:64]
    plain = copy.deepcopy(_net())
    plain.load_state_dict(with_plain_weights(model).state_dict())
    one, other = (compress(each, plan, bench.data, recovery(plan, bench.data)) for each in (model, plain))
    engine = OnnxRuntime().deploy(one, images[:1], tmp_path / "model.onnx")
    with torch.inference_mode():
        expected: Tensor = other(images)
        assert torch.allclose(one(images), expected, atol=1e-5)
    assert (engine.logits(images) - expected).abs().mean() < 0.05 * expected.std()


class _Doubled(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return 2 * values
