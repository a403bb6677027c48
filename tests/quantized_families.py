"""Quantized families: networks trained for a few epochs, quantized, and compared with their files; for tests."""

import dataclasses
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from beats_search import plugins
from beats_search.compression._conversion import freeze, learn_grids, quantize
from beats_search.records.part import Part
from beats_search.records.plan import TrainingPlan
from beats_search.runtimes.onnxruntime import OnnxRuntime
from beats_search.tensors.data import DataBundle, Split, Standardize
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


Method = Callable[[nn.Module, DataBundle, int], nn.Module]


@cache
def stripes(channels: int, side: int) -> DataBundle:
    """Return 320 images with noise, of which a row or a column of ten is bright, as a data set."""
    random = torch.Generator().manual_seed(0)
    labels, line = torch.arange(320) % 10, side // 8
    images = 0.25 * torch.rand(320, channels, side, side, generator=random)
    for image, label in zip(images, labels.tolist(), strict=True):
        view = image if label < 8 else image.transpose(1, 2)
        view[:, label % 8 * line : (label % 8 + 1) * line] += 0.7
    images += NOISE * DEVIATION * torch.randn(images.shape, generator=random)
    split = Split(inputs=images.clamp(0, 1), labels=labels)
    preprocess = Standardize([0.3] * channels, [DEVIATION] * channels)
    return DataBundle(train=split, validation=split, test=split, classes=tuple("0123456789"), preprocess=preprocess)


@cache
def trained(family: str) -> tuple[nn.Module, DataBundle]:
    """Return a network that was trained for a few epochs, and its data."""
    data = stripes(1, 8) if family in OURS else stripes(3, 16)
    torch.manual_seed(0)
    network = plugins.make("models", FAMILIES[family]).build(data.input_shape, 10)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.3  # few steps: the usual share would leave the first, untrained statistics in
        if isinstance(module, nn.Dropout | StochasticDepth):
            module.p = 0.0  # nor are there enough of them to learn around what is left out
    schedule = Part(name="one_cycle")
    plan = TrainingPlan(epochs=8, batch_size=32, lr=5e-3, clip=1.0, schedule=schedule, device="cpu")
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


def check_learned(family: str) -> None:
    """Assert that a network knows its data, and that with noise it decides for every class, for none too often."""
    model, data = trained(family)
    with torch.inference_mode():
        decided, noisily = (model(images).argmax(1) for images in (data.train.inputs, noisy(data.train.inputs)))
    assert float((decided == data.train.labels).double().mean()) >= 0.9
    assert int(noisily.bincount(minlength=10).min()) > 0.03 * NOISY_IMAGES
    assert int(noisily.bincount().max()) < 0.25 * NOISY_IMAGES


def check_file(family: str, method: Method, bits: int, folder: Path) -> None:
    """Assert that the file of a quantized network computes what it does on noisy images, on integer kernels alone.

    In few bits some networks answer the same to all images, so decisions say little: logits are compared by how
    far those of one class lie apart.
    """
    model, data = trained(family)
    quantized = method(model, data, bits)
    engine = OnnxRuntime().deploy(quantized, data.train.inputs[:1], folder / "model.onnx")
    kernels = engine.kernels().keys()
    assert not FLOAT_KERNELS & kernels
    assert "QGemm" in kernels
    images = noisy(data.train.inputs)
    with torch.inference_mode():
        got, expected = engine.logits(images), quantized(images)
    assert float((got.argmax(1) == expected.argmax(1)).double().mean()) >= 0.995
    distances = (got - expected).abs() / (expected - expected.mean(0)).std()
    assert float((distances.amax(1) < 0.05).double().mean()) >= 0.9  # a few integers round to the next step
    assert float(distances.mean()) < 0.02
