"""Beats layers are plain layers to tracing, pruning, quantization and export; lazy ones are built by a seed."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from beats_search.compression._conversion import quantize
from beats_search.compression.channel_pruning import ChannelPruning
from beats_search.runtimes.onnxruntime import OnnxRuntime
from beats_search.tensors.activations import ACTIVATIONS
from beats_search.tensors.beats_layers import Activation, BeatsConv2d, BeatsLinear
from beats_search.tensors.fake_quant import QuantizedConv2d, QuantizedLinear
from beats_search.tensors.graph import traced
from beats_search.tensors.network import with_preprocess
from beats_search.tensors.seams import Bench


def with_beats() -> nn.Sequential:
    """Return an untrained network for images of 8x8 pixels, of Beats layers and one plain layer."""
    return nn.Sequential(
        BeatsConv2d(16, (3, 3), activation="relu", in_channels=1),
        nn.MaxPool2d(2),
        BeatsConv2d(32, (3, 3), activation="relu", in_channels=16),
        nn.Flatten(),
        BeatsLinear(24, "relu", in_features=512),
        nn.Linear(24, 10),
    )


def plain() -> nn.Sequential:
    """Return the same network, written without Beats layers."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding="same"),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 24),
        nn.ReLU(),
        nn.Linear(24, 10),
    )


def twins(bench: Bench) -> tuple[nn.Module, nn.Module]:
    """Return both networks with the same random weights, behind the same preprocessing."""
    beats, twin = with_beats(), plain()
    for ours, theirs in zip(beats.parameters(), twin.parameters(), strict=True):
        theirs.data.copy_(ours.data)
    preprocess = bench.data.preprocess
    return with_preprocess(preprocess, beats).eval(), with_preprocess(preprocess, twin).eval()


def run(model: nn.Module, images: Tensor) -> Tensor:
    """Return the logits."""
    with torch.inference_mode():
        logits: Tensor = model(images)
    return logits


@pytest.mark.slow
@pytest.mark.parametrize("compress", [lambda model, _: model, quantize], ids=["float", "int8"])
def test_beats_layers_export_as_plain_layers_with_equal_outputs(
    compress: Callable[[nn.Module, Tensor], nn.Module], bench: Bench, tmp_path: Path
) -> None:
    """Exported, a network of Beats layers yields to the bit what its twin of Conv2d, Linear and ReLU yields."""
    images, example = bench.data.train.inputs[:64], torch.rand(1, 1, 8, 8)
    logits, precisions = [], []
    for index, model in enumerate(twins(bench)):
        engine = OnnxRuntime().deploy(compress(model, images), example, tmp_path / f"{index}.onnx")
        logits.append(engine.logits(images))
        precisions.append(engine.executed_as)
    assert torch.equal(*logits)
    assert precisions[0] == precisions[1]
    assert float(logits[0].std()) > 0


def test_a_graph_holds_plain_layers_only() -> None:
    """Traced, nothing is left of a Beats layer but its Conv2d or Linear and its activation."""
    graph = traced(with_beats())
    called = [type(graph.get_submodule(str(node.target))) for node in graph.graph.nodes if node.op == "call_module"]
    assert called == [type(layer) for layer in plain()]


def test_pruning_narrows_beats_layers_as_plain_ones(bench: Bench) -> None:
    """Pruned by half, both networks have the same narrower weights, and yield the same logits."""
    pruned = [ChannelPruning(ratio=0.5, round_to=4).apply(model, bench) for model in twins(bench)]
    ours, theirs = ([tuple(weight.shape) for weight in model.parameters()] for model in pruned)
    assert ours == theirs
    assert ours[:2] == [(8, 1, 3, 3), (8,)]
    images = bench.data.train.inputs[:8]
    assert torch.equal(run(pruned[0], images), run(pruned[1], images))


def test_pruning_finds_beats_layers_by_their_names(bench: Bench) -> None:
    """A pattern with the name of a Beats layer narrows that layer alone."""
    pruned = ChannelPruning(ratio=0.5, layers=("0*",), round_to=4).apply(twins(bench)[0], bench)
    layers = [layer.layer for layer in pruned.modules() if isinstance(layer, BeatsConv2d)]
    assert [len(layer.weight) for layer in layers if isinstance(layer, nn.Conv2d)] == [8, 32]


def test_quantization_makes_integer_layers_of_beats_layers(bench: Bench) -> None:
    """Quantized, every Conv2d and Linear is an integer layer, with the same grids as in the plain network."""
    images = bench.data.train.inputs[:64]
    ours, theirs = (quantize(model, images) for model in twins(bench))
    assert not [layer for layer in ours.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len([layer for layer in ours.modules() if isinstance(layer, QuantizedConv2d | QuantizedLinear)]) == 4
    assert torch.equal(run(ours, images), run(theirs, images))


@pytest.mark.parametrize("kernel_size", [1, 3, (1, 5), (7, 3)])
def test_a_beats_convolution_keeps_height_and_width(kernel_size: int | tuple[int, int]) -> None:
    """Whatever the odd kernel, as many rows and columns come out as went in."""
    layer = BeatsConv2d(4, kernel_size, "tanh", in_channels=2)
    assert layer(torch.rand(2, 2, 9, 5)).shape == (2, 4, 9, 5)


@pytest.mark.parametrize("name", [*ACTIVATIONS, "linear", None])
def test_the_activation_is_applied_to_the_layer_s_output(name: Activation) -> None:
    """A Beats layer computes activation(layer(inputs)); `linear` and None leave the layer's output as it is."""
    torch.manual_seed(0)
    layer, inputs = BeatsLinear(5, name, in_features=3), torch.randn(7, 3)
    inner = layer.layer
    assert isinstance(inner, nn.Linear)
    straight = inner(inputs)
    function = {None: nn.Identity(), "linear": nn.Identity()}.get(name) or getattr(nn.functional, str(name))
    assert torch.equal(layer(inputs), function(straight))
    assert torch.equal(straight, layer(inputs)) == (name in {None, "linear"})


@pytest.mark.parametrize("make", [lambda name: BeatsConv2d(4, (3, 3), name), lambda name: BeatsLinear(4, name)])
def test_an_unknown_activation_is_refused_with_the_likely_one(make: Callable[[str], nn.Module]) -> None:
    """The error names what was probably meant, and all that there are."""
    allowed = r"\(relu, leaky_relu, tanh, sigmoid, gelu, linear\)"
    with pytest.raises(ValueError, match=rf"unknown activation 'rleu'; did you mean 'relu'\? {allowed}"):
        make("rleu")


@pytest.mark.parametrize("kernel_size", [2, (3, 4), (2, 3), 0])
def test_even_kernels_are_refused(kernel_size: int | tuple[int, int]) -> None:
    """No padding centres a kernel of even size."""
    with pytest.raises(ValueError, match=r"kernel of odd height and width, .* got kernel_size="):
        BeatsConv2d(4, kernel_size)


def test_without_input_sizes_a_layer_finds_them_at_the_first_call() -> None:
    """As in `BeatsConv2d(64, (3, 3), activation='relu')`; after the call the layers are plain ones."""
    network = nn.Sequential(BeatsConv2d(64, (3, 3), activation="relu"), nn.Flatten(), BeatsLinear(5))
    assert network(torch.rand(2, 3, 6, 4)).shape == (2, 5)
    inner = [part.layer for part in network if isinstance(part, BeatsConv2d | BeatsLinear)]
    assert [type(layer) for layer in inner] == [nn.Conv2d, nn.Linear]
    assert [tuple(parameter.shape) for parameter in network.parameters()] == [(64, 3, 3, 3), (64,), (5, 1536), (5,)]


def test_lazy_and_explicit_layers_are_the_same_layers() -> None:
    """With one seed, a lazy network that is called draws the weights that explicit sizes draw."""
    torch.manual_seed(3)
    lazy = nn.Sequential(BeatsConv2d(4), nn.Flatten(), BeatsLinear(5))
    lazy(torch.rand(1, 2, 3, 3, generator=torch.Generator().manual_seed(0)))
    torch.manual_seed(3)
    explicit = nn.Sequential(BeatsConv2d(4, in_channels=2), nn.Flatten(), BeatsLinear(5, in_features=36))
    for ours, theirs in zip(lazy.parameters(), explicit.parameters(), strict=True):
        assert torch.equal(ours, theirs)
