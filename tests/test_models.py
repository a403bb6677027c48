"""Every family of networks on the shelf keeps one contract."""

from itertools import pairwise

import pytest
import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

from beats_search import plugins
from beats_search.models.cnn import Cnn
from beats_search.models.mlp import Mlp
from beats_search.models.resnet import Resnet
from beats_search.models.torchvision import Torchvision
from beats_search.records.part import Part, Setting
from beats_search.tensors.activations import ACTIVATIONS, ActivationName
from beats_search.tensors.beats_layers import BeatsConv2d

SHELF: dict[str, dict[str, Setting]] = {
    "mlp": {"width": 7, "depth": 2},
    "cnn": {"width": 4, "dense": 9, "beats_layers": 2},
    "resnet": {"width": 4, "blocks": 2},
    "torchvision": {"network": "shufflenet_v2_x0_5"},
}
SHAPES = [(1, 28, 28), (3, 32, 32), (2, 30, 27)]


def build(name: str, input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build the example of a family, always with the same random weights."""
    torch.manual_seed(0)
    family = plugins.make("models", Part(name=name, settings=tuple(SHELF[name].items())))
    network: nn.Module = family.build(input_shape, classes)
    return network


def parameters(network: nn.Module) -> int:
    """Count the parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def test_every_family_is_tested() -> None:
    """A new file on the shelf comes with an entry here."""
    assert set(plugins.names("models")) == set(SHELF)


@pytest.mark.parametrize("name", SHELF)
@pytest.mark.parametrize("classes", [2, 7])
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_one_row_per_input(name: str, shape: tuple[int, ...], classes: int) -> None:
    """Inputs of (n, *shape) become finite logits of (n, classes), in training mode too."""
    logits = build(name, shape, classes)(torch.rand(3, *shape))
    assert logits.shape == (3, classes)
    assert bool(logits.isfinite().all())


@pytest.mark.parametrize("name", SHELF)
def test_logits_are_not_probabilities(name: str) -> None:
    """The loss and the export expect logits, so rows do not sum to 1."""
    rows = build(name, (1, 28, 28), 5).eval()(torch.rand(4, 1, 28, 28)).sum(dim=1)
    assert not torch.allclose(rows, torch.ones(4))


@pytest.mark.parametrize("name", SHELF)
def test_networks_can_be_traced(name: str) -> None:
    """torch.fx follows the network without running into control flow, and the trace computes the same."""
    network, inputs = build(name, (1, 28, 28), 5).eval(), torch.rand(2, 1, 28, 28)
    assert torch.equal(fx.symbolic_trace(network)(inputs), network(inputs))


@pytest.mark.parametrize("name", SHELF)
def test_layout_in_memory_changes_no_logits(name: str) -> None:
    """Channels in the last place are the same network."""
    network, inputs = build(name, (3, 32, 32), 5).eval(), torch.rand(2, 3, 32, 32)
    expected = network(inputs)
    moved = network.to(memory_format=torch.channels_last)(inputs.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SHELF)
def test_gradients_reach_every_parameter(name: str) -> None:
    """No parameter is left out of the loss."""
    network = build(name, (3, 32, 32), 5).train()
    loss = nn.functional.cross_entropy(network(torch.rand(8, 3, 32, 32)), torch.arange(8) % 5)
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    for (path, _), gradient in zip(network.named_parameters(), gradients, strict=True):
        assert bool(gradient.any()), path


@pytest.mark.parametrize("name", SHELF)
def test_each_build_is_a_network_of_its_own(name: str) -> None:
    """Two builds share no parameter and begin with different weights."""
    family = plugins.make("models", Part(name=name, settings=tuple(SHELF[name].items())))
    first, second = (next(family.build((1, 28, 28), 3).parameters()) for _ in range(2))
    assert not torch.equal(first, second)


def test_the_reference_networks_have_their_published_shapes() -> None:
    """The MLP is 784-100-10, the CNN 32-64-128-10 with pooling after both convolutions."""
    mlp = Mlp().build((1, 28, 28), 10)
    assert [tuple(weight.shape) for weight in mlp.parameters() if weight.ndim == 2] == [(100, 784), (10, 100)]
    cnn = Cnn().build((1, 28, 28), 10)
    shapes = [tuple(weight.shape) for weight in cnn.parameters() if weight.ndim > 1]
    assert shapes == [(32, 1, 3, 3), (64, 32, 3, 3), (128, 64 * 7 * 7), (10, 128)]


def test_beats_layers_stand_between_pooling_and_the_dense_layer() -> None:
    """Each keeps the shape of what it gets; the other layers are named as without them."""
    plain, beats = Cnn().build((1, 28, 28), 10), Cnn(beats_layers=2).build((1, 28, 28), 10)
    assert [name for name, _ in plain.named_children()] == [
        *("conv1", "relu1", "pool1", "conv2", "relu2", "pool2", "flatten", "fc1", "relu3", "fc2")
    ]
    names = [name for name, _ in beats.named_children()]
    assert names[6:8] == ["beats1", "beats2"]
    assert names[:6] + names[8:] == [name for name, _ in plain.named_children()]
    layers = [layer for layer in beats.children() if isinstance(layer, BeatsConv2d)]
    assert [tuple(layer.state_dict()["layer.weight"].shape) for layer in layers] == [(64, 64, 3, 3)] * 2


@pytest.mark.parametrize("beats_layers", [0, 1, 3])
def test_a_beats_layer_costs_one_convolution(beats_layers: int) -> None:
    """Each adds the parameters and the work of a 3x3 convolution of all channels over the pooled image."""
    with FlopCounterMode(display=False) as counter:
        network = Cnn(width=4, dense=8, beats_layers=beats_layers).build((1, 8, 8), 10).eval()
        network(torch.rand(1, 1, 8, 8))
    convolutions = 9 * 4 * 64 + 9 * 4 * 8 * 16 + beats_layers * 9 * 8 * 8 * 4
    assert counter.get_total_flops() == 2 * (convolutions + 32 * 8 + 8 * 10)
    assert parameters(network) == 40 + 296 + 264 + 90 + beats_layers * (9 * 8 * 8 + 8)


def test_settings_left_out_change_no_weight() -> None:
    """A network with the settings' defaults has the names, and from one seed the weights, of one without them."""
    torch.manual_seed(0)
    mlp = Mlp(width=5, depth=2, activation="relu", dropout=0.0).build((3,), 2).state_dict()
    torch.manual_seed(0)
    layers = {"fc1": nn.Linear(3, 5), "fc2": nn.Linear(5, 5), "fc3": nn.Linear(5, 2)}
    expected = {f"{name}.{key}": value for name, layer in layers.items() for key, value in layer.state_dict().items()}
    assert list(mlp) == list(expected)
    assert all(torch.equal(mlp[name], value) for name, value in expected.items())
    names = [name for name, _ in Mlp(width=5, depth=2).build((3,), 2).named_children()]
    assert names == ["flatten", "fc1", "relu1", "fc2", "relu2", "fc3"]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_mlp_activates_and_drops_after_every_hidden_layer(activation: ActivationName) -> None:
    """Each hidden layer is followed by the activation and the dropout that were asked for; the last by neither."""
    network = Mlp(depth=2, activation=activation, dropout=0.25).build((1, 8, 8), 10)
    kinds = [type(layer) for layer in network.children()]
    hidden = [nn.Linear, type(ACTIVATIONS[activation]()), nn.Dropout]
    assert kinds == [nn.Flatten, *hidden, *hidden, nn.Linear]
    assert {layer.p for layer in network.children() if isinstance(layer, nn.Dropout)} == {0.25}


def test_a_resnet_has_six_convolutions_and_two_projections_at_one_block_a_stage() -> None:
    """Beside the stem: two convolutions a block, and a 1x1 projection where stage 2 and 3 begin."""
    layers = [layer for layer in Resnet(width=32).build((1, 28, 28), 10).modules() if isinstance(layer, nn.Conv2d)]
    assert sorted(layer.kernel_size for layer in layers) == [(1, 1)] * 2 + [(3, 3)] * 7
    assert {layer.out_channels for layer in layers} == {32, 64, 128}


def test_a_resnet_normalizes_every_convolution() -> None:
    """A batch normalization follows each convolution, which therefore needs no bias."""
    modules = list(Resnet(width=4, blocks=2).build((1, 8, 8), 10).modules())
    pairs = [(layer, after) for layer, after in pairwise(modules) if isinstance(layer, nn.Conv2d)]
    assert all(layer.bias is None and isinstance(after, nn.BatchNorm2d) for layer, after in pairs)


@pytest.mark.parametrize("family", [Resnet, Cnn])
def test_wider_networks_have_more_parameters(family: type[Resnet | Cnn]) -> None:
    """Width is a knob that does something."""
    counts = [parameters(family(width=width).build((1, 8, 8), 10)) for width in (4, 8, 16)]
    assert counts == sorted(set(counts))


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        (Mlp, {"width": 0}, "mlp needs width >= 1 and depth >= 1, got width=0, depth=1"),
        (Mlp, {"depth": 0}, "got width=100, depth=0"),
        (Mlp, {"dropout": 1.0}, "mlp.dropout needs to be at least 0 and below 1, got 1.0"),
        (Mlp, {"dropout": -0.5}, "mlp.dropout .* got -0.5"),
        (Cnn, {"beats_layers": -1}, "cnn.beats_layers needs to be at least 0, got -1"),
        (Cnn, {"width": 0}, "cnn needs width >= 1 and dense >= 1, got width=0"),
        (Cnn, {"dense": -1}, "dense=-1"),
        (Resnet, {"width": 0}, "resnet needs width >= 1 and blocks >= 1, got width=0"),
        (Resnet, {"blocks": 0}, "blocks=0"),
        (Torchvision, {"network": "resnet81"}, "did you mean 'resnet1[08]"),
        (Torchvision, {"network": "?"}, "list_models"),
    ],
)
def test_settings_without_sense_are_refused(
    family: type[Mlp | Cnn | Resnet | Torchvision], settings: dict[str, float], message: str
) -> None:
    """The error states the rule, then the values."""
    with pytest.raises(ValueError, match=message):
        family(**settings)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("family", [Cnn(), Resnet(), Torchvision(network="resnet18")])
def test_inputs_that_are_no_images_are_refused(family: Cnn | Resnet | Torchvision) -> None:
    """Convolutions need channels, height and width."""
    with pytest.raises(ValueError, match=r"needs images \(channels, height, width\).*got \(13,\)"):
        family.build((13,), 2)


def test_a_dense_network_takes_inputs_of_any_rank() -> None:
    """An MLP flattens: it takes rows of a table as well as images."""
    assert Mlp().build((13,), 2)(torch.rand(4, 13)).shape == (4, 2)


@pytest.mark.parametrize(
    ("family", "shape", "message"),
    [
        (Cnn(), (1, 3, 8), "at least 4x4 pixels, got"),
        (Torchvision(network="squeezenet1_1"), (3, 16, 16), "squeezenet1_1 cannot take inputs of shape"),
        (Torchvision(network="vit_b_32"), (3, 60, 60), "vit_b_32 cannot take inputs of shape"),
    ],
)
def test_images_of_the_wrong_size_are_refused(family: Cnn | Torchvision, shape: tuple[int, ...], message: str) -> None:
    """A network says that images do not fit when it is built, not in the middle of training."""
    with pytest.raises(ValueError, match=message):
        family.build(shape, 10)


@pytest.mark.parametrize("network", ["googlenet", "mobilenet_v3_small"])
def test_torchvision_networks_return_nothing_but_logits(network: str) -> None:
    """Auxiliary heads are left out, and the stem takes as many channels as the images have."""
    built = Torchvision(network=network).build((2, 40, 40), 3).train()
    assert built(torch.rand(2, 2, 40, 40)).shape == (2, 3)
