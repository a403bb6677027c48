"""Quantization: fake-quant layers against integer arithmetic, and exported files against the layers."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from beats_search import plugins
from beats_search.compression._conversion import quantize
from beats_search.compression._grids import Observer, activation_grid, weight_scale
from beats_search.compression.quantization import Quantization
from beats_search.records.errors import TrialError
from beats_search.records.part import Part
from beats_search.runtimes.onnxruntime import OnnxRuntime
from beats_search.tensors.fake_quant import ActivationQuantizer, QuantizedConv2d, QuantizedLinear, QuantizedWeight
from beats_search.tensors.graph import fold_batch_norms, traced
from beats_search.tensors.network import with_preprocess
from beats_search.tensors.seams import Bench

FAMILIES = {
    "mlp": Part(name="mlp"),
    "cnn": Part(name="cnn"),
    "resnet": Part(name="resnet", settings=(("width", 8),)),
}


def _model(family: str, bench: Bench, settle: Callable[[nn.Module, Tensor], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    network = plugins.make("models", FAMILIES[family]).build((1, 8, 8), 10)
    return settle(with_preprocess(bench.data.preprocess, network), bench.data.train.inputs)


@given(
    values=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20),
    scale=st.floats(0.015625, 1.0, width=32),
    zero_point=st.integers(0, 255),
)
def test_activation_lands_on_its_grid(values: list[float], scale: float, zero_point: int) -> None:
    """A quantized value is a whole number of steps within 0…255, and twice quantized is once quantized."""
    grid = ActivationQuantizer(scale, zero_point)
    once = grid(torch.tensor(values))
    steps = once / grid.scale + zero_point
    assert torch.allclose(steps, steps.round(), atol=1e-3)
    assert steps.round().min() >= 0
    assert steps.round().max() <= 255
    assert torch.equal(grid(once), once)


def test_activation_grid_holds_zero_exactly() -> None:
    """Zero stays zero, so that padding means the same in float and in integers."""
    seen = Observer()
    seen(torch.linspace(-1.3, 2.7, 500))
    grid = activation_grid(seen, positive=False)
    assert grid(torch.zeros(1)).item() == 0


def test_positive_grid_starts_at_zero() -> None:
    """After a ReLU no step is spent on negative values."""
    seen = Observer()
    seen(torch.linspace(0, 2.7, 500))
    assert activation_grid(seen, positive=True).zero_point == 0


def test_activation_range_gives_up_a_lone_outlier() -> None:
    """The range of least error is narrower than the largest value when that value is alone."""
    seen = Observer()
    seen(torch.cat([torch.rand(60_000), torch.tensor([2.0])]))
    assert float(activation_grid(seen, positive=True).scale) * 255 < 1.9


@given(shape=st.sampled_from([(128, 8, 8), (64, 32, 32), (256, 2, 2), (3, 5, 7)]))
def test_sample_of_activations_covers_every_pixel(shape: tuple[int, int, int]) -> None:
    """Whatever the layout, every row and column of the images is in what the range is fitted to."""
    channels, height, width = shape
    positions = torch.arange(height * width, dtype=torch.float32).reshape(1, 1, height, width)
    seen = Observer()
    seen(positions.expand(64, channels, height, width))
    assert len(set(torch.cat(seen.samples).tolist())) >= 0.98 * height * width


def test_wide_network_loses_little(bench: Bench, settled: Callable[[nn.Module, Tensor], nn.Module]) -> None:
    """At 8 bits the logits of a wide residual network move by a small part of their spread."""
    network = plugins.make("models", Part(name="resnet", settings=(("width", 64),))).build((1, 8, 8), 10)
    model = settled(with_preprocess(bench.data.preprocess, network), bench.data.train.inputs)
    images = bench.data.train.inputs
    with torch.inference_mode():
        expected, got = model(images), quantize(model, images)(images)
    assert (got - expected).abs().mean() < 0.05 * expected.std()


class _Shared(nn.Module):
    """Calls one convolution and one norm twice, on inputs of different ranges."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.first, self.pool, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Linear(4, 10)

    def forward(self, images: Tensor) -> Tensor:
        once = torch.relu(self.norm(self.conv(self.first(images))))
        twice = torch.relu(self.norm(self.conv(3 * once)))
        logits: Tensor = self.last(self.pool(twice).flatten(1))
        return logits


def test_layers_called_twice_keep_their_function(
    bench: Bench, settled: Callable[[nn.Module, Tensor], nn.Module]
) -> None:
    """A convolution and its norm that are called twice are folded into neither call, and both calls are right."""
    torch.manual_seed(0)
    images = bench.data.train.inputs
    model = settled(_Shared(), images)
    with torch.inference_mode():
        expected = model(images)
        assert torch.allclose(fold_batch_norms(traced(model))(images), expected, atol=1e-5)
        assert (quantize(model, images)(images) - expected).abs().mean() < 0.1 * expected.std()


def test_weight_scale_is_no_worse_than_the_largest_value() -> None:
    """Per channel, the chosen step loses no more than the step that just holds the largest weight."""
    weight = torch.randn(16, 200, generator=torch.Generator().manual_seed(0))
    chosen, largest = weight_scale(weight), weight.abs().amax(1) / 127

    def loss(scale: Tensor) -> Tensor:
        steps = (weight / scale[:, None]).round().clamp(-127, 127)
        return (steps * scale[:, None] - weight).square().mean(1)

    assert bool((loss(chosen) <= loss(largest)).all())


def test_dead_channel_keeps_its_bias() -> None:
    """A channel whose weights are almost nothing gets a step at which its bias fits into 32 bits."""
    weight, bias = torch.tensor([[1e-12, -1e-12], [0.5, 0.2]]), torch.tensor([3.0, -1.0])
    grid = QuantizedWeight(weight, bias, scale=weight_scale(weight), input_scale=torch.tensor(0.01))
    assert torch.allclose(grid()[1], bias, rtol=1e-3)
    assert int(grid.bias_steps.abs().max()) <= 2**30


@pytest.mark.parametrize("affine", [True, False])
def test_folding_batch_norms_keeps_the_function(affine: bool) -> None:  # noqa: FBT001 - a case of the table
    """A network with its batch norms folded away computes the same."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4, affine=affine)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(144, 5), nn.BatchNorm1d(5))
    images = torch.rand(32, 1, 8, 8)
    model.train()(images)
    folded = fold_batch_norms(traced(model.eval()))
    assert not any(isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d) for module in folded.modules())
    assert torch.allclose(folded(images), model(images), atol=1e-5)


def test_an_identity_between_two_layers_is_left_out() -> None:
    """What an Identity stands between is fused as if it were not there; the network computes the same."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    model = nn.Sequential(*(part for layer in plain for part in (nn.Identity(), layer)), nn.Identity())
    images = torch.rand(8, 1, 8, 8)
    assert torch.equal(traced(model)(images), plain(images))
    with torch.inference_mode():
        assert torch.equal(quantize(model, images)(images), quantize(plain, images)(images))


def test_integer_arithmetic_is_what_fake_quantization_computes() -> None:
    """A quantized linear layer equals integer products and sums, scaled once at the end."""
    torch.manual_seed(0)
    layer, grid = nn.Linear(20, 7), ActivationQuantizer(0.02, 3)
    weight = QuantizedWeight(
        layer.weight.detach(), layer.bias.detach(), scale=weight_scale(layer.weight), input_scale=grid.scale
    )
    values = grid(torch.randn(50, 20))
    steps = (values / grid.scale).round().long()
    integers = steps @ weight.steps.long().T + weight.bias_steps.long()
    expected = integers.double() * weight.bias_scale.double()
    assert torch.allclose(QuantizedLinear(weight)(values).double(), expected, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_layer_becomes_an_integer_layer(
    family: str, bench: Bench, settled: Callable[[nn.Module, Tensor], nn.Module]
) -> None:
    """No float convolution or linear layer is left, and the logits stay close to the float model's."""
    model = _model(family, bench, settled)
    images = bench.data.train.inputs
    with torch.inference_mode():
        expected, got = model(images), Quantization(bits=8).apply(model, bench)(images)
    quantized = quantize(model, images)
    assert not any(isinstance(module, nn.Conv2d | nn.Linear) for module in quantized.modules())
    assert any(isinstance(module, QuantizedConv2d | QuantizedLinear) for module in quantized.modules())
    assert (got - expected).abs().mean() < 0.1 * expected.std()


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_exported_file_runs_on_integer_kernels_only(
    family: str, bench: Bench, settled: Callable[[nn.Module, Tensor], nn.Module], tmp_path: Path
) -> None:
    """The optimized graph of onnxruntime has no float Conv, Gemm or MatMul, and decides like the torch model."""
    quantized = quantize(_model(family, bench, settled), bench.data.train.inputs)
    engine = OnnxRuntime().deploy(quantized, bench.data.train.inputs[:1], tmp_path / "model.onnx")
    kernels = engine.kernels()
    assert not {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"} & set(kernels)
    assert {"QLinearConv", "QGemm"} & set(kernels)
    assert engine.executed_as == "int8"
    noisy = bench.data.train.inputs + 0.1 * torch.randn(bench.data.train.inputs.shape)
    with torch.inference_mode():
        same = engine.logits(noisy).argmax(1) == quantized(noisy).argmax(1)
    assert same.double().mean() >= 0.99


def test_32_bits_leave_the_model_as_it_is(bench: Bench) -> None:
    """Asking for 32 bits returns the very model."""
    model = nn.Linear(3, 3)
    assert Quantization(bits=32).apply(model, bench) is model


def test_quantizing_changes_no_argument(bench: Bench, settled: Callable[[nn.Module, Tensor], nn.Module]) -> None:
    """The float model is the same to the bit after its copy was quantized."""
    model = _model("resnet", bench, settled)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quantize(model, bench.data.train.inputs)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class _Forked(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values if values.sum() > 0 else -values


def test_a_model_without_a_graph_is_refused_by_name(bench: Bench) -> None:
    """A network whose way depends on the data cannot be quantized, and the reason says so."""
    with pytest.raises(TrialError, match="no static graph"):
        Quantization(bits=8).apply(_Forked(), bench)
