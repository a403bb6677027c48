"""Quantized networks: families at every bit-width decide in their files as in torch, on integer kernels."""

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from beats_search import plugins
from beats_search.compression._conversion import freeze, learn_grids, quantize
from beats_search.compression._grids import weight_scale
from beats_search.compression._mixed import integer_layers
from beats_search.records.part import Part
from beats_search.records.plan import TrainingPlan
from beats_search.runtimes.onnxruntime import OnnxRuntime
from beats_search.tensors.data import DataBundle, Split, Standardize
from beats_search.tensors.fake_quant import ActivationQuantizer, QuantizedLinear, QuantizedWeight
from beats_search.tensors.network import with_preprocess
from beats_search.training.fit import fit

OURS: Final = {
    "mlp": Part(name="mlp", settings=(("depth", 3),)),
    "cnn": Part(name="cnn", settings=(("beats_layers", 1), ("width", 8))),
    "resnet": Part(name="resnet", settings=(("width", 16),)),
}
TORCHVISION: Final = {
    name: Part(name="torchvision", settings=(("network", name),))
    for name in ("resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "shufflenet_v2_x0_5")
}
FAMILIES: Final = OURS | TORCHVISION
FLOAT_KERNELS: Final = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}
NOISE: Final = 0.35
DEVIATION: Final = 0.3
NOISY_IMAGES: Final = 1000
BITS: Final = (8, 6, 4, 3, 2)
OBSERVED: Final = 64
RETRAINED: Final = 96


@cache
def stripes(channels: int, side: int) -> DataBundle:
    """Return 320 images, of which a row or a column of ten is bright, as a data set."""
    random = torch.Generator().manual_seed(0)
    labels, line = torch.arange(320) % 10, side // 8
    images = 0.25 * torch.rand(320, channels, side, side, generator=random)
    for image, label in zip(images, labels.tolist(), strict=True):
        view = image if label < 8 else image.transpose(1, 2)
        view[:, label % 8 * line : (label % 8 + 1) * line] += 0.7
    split = Split(inputs=images, labels=labels)
    preprocess = Standardize([0.3] * channels, [DEVIATION] * channels)
    return DataBundle(train=split, validation=split, test=split, classes=tuple("0123456789"), preprocess=preprocess)


@cache
def trained(family: str) -> tuple[nn.Module, DataBundle]:
    """Return a network that was trained for a few epochs, and its data."""
    data = stripes(1, 8) if family in OURS else stripes(3, 16)
    torch.manual_seed(0)
    network = plugins.make("models", FAMILIES[family]).build(data.input_shape, 10)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 0.2  # few steps: the usual share would leave the first, untrained statistics in
    plan = TrainingPlan(epochs=4, batch_size=16, lr=4e-3, schedule=Part(name="one_cycle"), device="cpu")
    return fit(with_preprocess(data.preprocess, network), data, plan, seed=0).model, data


def rounded(model: nn.Module, data: DataBundle, bits: int) -> nn.Module:
    """Return the model quantized after its training."""
    return quantize(model, data.train.inputs[:OBSERVED], bits)


def learned(model: nn.Module, data: DataBundle, bits: int) -> nn.Module:
    """Return the model after a short epoch on learned grids."""
    few = data.train.first(RETRAINED)
    short = dataclasses.replace(data, train=few, validation=few)
    plan = TrainingPlan(epochs=1, batch_size=32, lr=5e-4, schedule=Part(name="cosine"), device="cpu")
    return freeze(fit(learn_grids(model, few.inputs[:OBSERVED], bits), short, plan, seed=0).model)


def noisy(images: Tensor) -> Tensor:
    """Return images, some more than once, with noise: clean ones hide errors behind large margins."""
    many = images.repeat(-(-NOISY_IMAGES // len(images)), 1, 1, 1)[:NOISY_IMAGES]
    return many + NOISE * DEVIATION * torch.randn(many.shape, generator=torch.Generator().manual_seed(1))


def test_the_order_of_summing_does_not_show() -> None:
    """An integer layer whose inputs and weights are permuted alike yields the same, bit for bit."""
    random = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(8, 600, generator=random), torch.randn(8, generator=random)
    values = ActivationQuantizer(0.013, 101)(torch.randn(500, 600, generator=random))
    order = torch.randperm(600, generator=random)

    def layer(of: Tensor) -> QuantizedLinear:
        scale, step = weight_scale(weight), torch.tensor(0.013)
        return QuantizedLinear(QuantizedWeight(of, bias, scale=scale, input_scale=step))

    assert torch.equal(layer(weight)(values), layer(weight[:, order])(values[:, order]))


def test_a_layer_before_a_grid_yields_what_an_integer_kernel_yields() -> None:
    """Sums in 32 bits, scaled by one float32 factor, rounded half to even: those are the layer's steps."""
    random = torch.Generator().manual_seed(0)
    weight, bias, ends = torch.randn(8, 30, generator=random), torch.randn(8, generator=random), (0.5, 0.25)
    given, taken = (torch.tensor(end) for end in ends)
    integers = QuantizedWeight(weight, bias, scale=torch.full((8,), 0.125), input_scale=given, output_scale=taken)
    steps = torch.randint(-100, 156, (4000, 30), generator=random)
    sums = steps @ integers.steps.long().T + integers.bias_steps
    expected = np.rint(sums.numpy().astype(np.float32) * np.float32(0.5 * 0.125 / 0.25))  # a quarter: ties abound
    assert np.array_equal((QuantizedLinear(integers)(steps * given) / taken).numpy(), expected)


def test_a_layer_knows_the_grid_behind_its_relu_and_logits_have_none() -> None:
    """Each integer layer rounds to the grid that follows it; the last one does not round."""
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 2))
    quantized = quantize(model, torch.rand(32, 4, generator=torch.Generator().manual_seed(0)))
    first, second, last = integer_layers(quantized)
    behind = [grid.scale for grid in quantized.modules() if isinstance(grid, ActivationQuantizer)]
    assert [first.output_scale, second.output_scale] == behind[1:3]
    assert last.output_scale is None


@pytest.mark.slow
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("method", [rounded, learned])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_file_decides_as_the_model(
    family: str, method: Callable[[nn.Module, DataBundle, int], nn.Module], bits: int, tmp_path: Path
) -> None:
    """On noisy images 99.5 % of decisions are equal, and no heavy kernel of the optimized graph is float."""
    model, data = trained(family)
    quantized = method(model, data, bits)
    engine = OnnxRuntime().deploy(quantized, data.train.inputs[:1], tmp_path / "model.onnx")
    kernels = engine.kernels().keys()
    assert not FLOAT_KERNELS & kernels
    assert "QGemm" in kernels
    images = noisy(data.train.inputs)
    with torch.inference_mode():
        same = engine.logits(images).argmax(1) == quantized(images).argmax(1)
    assert float(same.double().mean()) >= 0.995
