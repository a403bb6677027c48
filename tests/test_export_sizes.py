"""Export of networks that differ in the sizes of their layers: one graph for all of them, where that is right."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from export_toys import of_its_own
from torch import Tensor, nn

from beats_search import plugins
from beats_search.compression.channel_pruning import ChannelPruning
from beats_search.compression.quantization import Quantization
from beats_search.records.part import Part
from beats_search.runtimes._onnx_export import export_onnx
from beats_search.tensors.data import DataBundle, Split, Standardize
from beats_search.tensors.network import with_preprocess
from beats_search.tensors.seams import Bench

GRAY = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
COLOUR = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def colourful() -> Bench:
    """Return a bench with a few images in colour, on which nothing is trained."""
    images = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    split = Split(inputs=images, labels=torch.arange(16) % 10)
    standardize = Standardize([0.5] * 3, [0.3] * 3)
    data = DataBundle(train=split, validation=split, test=split, classes=tuple("abcdefghij"), preprocess=standardize)
    return Bench(data=data, fine_tune=lambda model, *_, **__: model, seed=0)


def network(part: Part, bench: Bench) -> nn.Module:
    """Return an untrained network with the preprocessing of the data."""
    torch.manual_seed(0)
    built = plugins.make("models", part).build(bench.data.input_shape, 10)
    return with_preprocess(bench.data.preprocess, built).eval()


def quantized(model: nn.Module, bits: int, bench: Bench) -> nn.Module:
    """Return the model in `bits` bits after training."""
    technique = Quantization(bits=bits)  # type: ignore[arg-type]  # one of those that are allowed
    return technique.apply(model, bench)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [32, 8])
@pytest.mark.parametrize("family", ["mlp", "cnn", "resnet"])
def test_all_widths_of_a_network_share_a_graph(
    family: str, bits: int, bench: Bench, exports: list[nn.Module], tmp_path: Path
) -> None:
    """The file of another width is, to the byte, that of an export of its own, of which none is made."""
    for width in (8, 16, 24):
        model = quantized(network(Part(name=family, settings=(("width", width),)), bench), bits, bench)
        export_onnx(model, GRAY, tmp_path / "model.onnx")
    assert len(exports) == 1
    assert (tmp_path / "model.onnx").read_bytes() == of_its_own(model, GRAY)


@pytest.mark.slow
def test_pruned_networks_of_others_share_a_graph(exports: list[nn.Module], tmp_path: Path) -> None:
    """The same holds for depthwise and gated convolutions, whose groups are sizes, after pruning."""
    bench = colourful()
    whole = network(Part(name="torchvision", settings=(("network", "mobilenet_v3_small"),)), bench)
    for ratio in (0.25, 0.5):
        model = quantized(ChannelPruning(ratio=ratio, round_to=8).apply(whole, bench), 8, bench)
        export_onnx(model, COLOUR, tmp_path / "model.onnx")
    assert len(exports) == 1
    assert (tmp_path / "model.onnx").read_bytes() == of_its_own(model, COLOUR)


class Looking(nn.Module):
    """Does something else for wide inputs, which it sees in their shape alone."""

    def forward(self, values: Tensor) -> Tensor:
        return values.abs() if values.shape[1] > 10 else values


class Averaging(nn.Module):
    """Divides by a size that it reads from a shape."""

    def forward(self, values: Tensor) -> Tensor:
        return values / values.shape[1]


class Shuffling(nn.Module):
    """Mixes two halves of the channels."""

    def forward(self, values: Tensor) -> Tensor:
        count, channels, height, width = values.shape
        return values.view(count, 2, channels // 2, height, width).transpose(1, 2).reshape(values.shape)


def around(
    module: Callable[[], nn.Module], width: int, *, classes: int = 10, kernel: int = 3, groups: int = 1
) -> nn.Module:
    """Return a network of two convolutions with a module between them."""
    torch.manual_seed(width)
    first, second = nn.Conv2d(1, width, kernel), nn.Conv2d(width, width, kernel, groups=groups)
    head = nn.LazyLinear(classes)
    model = nn.Sequential(first, module(), second, nn.BatchNorm2d(width), nn.Flatten(), head).eval()
    model(GRAY)
    return model.eval()


def deviation(path: Path, model: nn.Module) -> float:
    """Return how far the file's logits are from the model's, for three inputs."""
    inputs = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    found = onnxruntime.InferenceSession(path).run(None, {"input": inputs.numpy()})[0]
    with torch.inference_mode():
        expected = model(inputs).numpy()
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max())


DIFFERENT = {
    "a branch on a size": (around(Looking, 8), around(Looking, 16)),
    "a number that is a size": (around(Averaging, 8), around(Averaging, 16)),
    "a view that names sizes": (around(Shuffling, 8), around(Shuffling, 16)),
    "groups of a fixed number": (around(nn.ReLU, 8, groups=4), around(nn.ReLU, 16, groups=4)),
    "as many groups as channels, then fewer": (around(nn.ReLU, 8, groups=8), around(nn.ReLU, 16, groups=8)),
    "another kernel": (around(nn.ReLU, 8), around(nn.ReLU, 16, kernel=2)),
    "more classes": (around(nn.ReLU, 8), around(nn.ReLU, 16, classes=12)),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", DIFFERENT)
def test_what_differs_in_more_than_sizes_gets_a_graph_of_its_own(
    what: str, exports: list[nn.Module], tmp_path: Path
) -> None:
    """Where a graph of one width is wrong for another, each is exported and computes what it should."""
    for model in DIFFERENT[what]:
        export_onnx(model, GRAY, tmp_path / "model.onnx")
        assert deviation(tmp_path / "model.onnx", model) < 1e-5
    assert len(exports) == 2


@pytest.mark.slow
def test_a_depthwise_convolution_gets_as_many_groups_as_channels(exports: list[nn.Module], tmp_path: Path) -> None:
    """One graph serves depthwise convolutions of any width."""
    for width in (8, 16, 12):
        model = around(nn.ReLU, width, groups=width)
        export_onnx(model, GRAY, tmp_path / "model.onnx")
        assert deviation(tmp_path / "model.onnx", model) < 1e-5
    assert len(exports) == 1
