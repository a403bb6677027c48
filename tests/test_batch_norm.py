"""Batch norms added to a network or removed from it: where they stand, what stays, what can be done with it after."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from beats_search.compression._conversion import quantize
from beats_search.compression.channel_pruning import ChannelPruning
from beats_search.models.cnn import Cnn
from beats_search.models.mlp import Mlp
from beats_search.models.resnet import Resnet
from beats_search.models.torchvision import Torchvision
from beats_search.records.plan import TrainingPlan
from beats_search.runtimes.onnxruntime import OnnxRuntime
from beats_search.tensors.beats_layers import BeatsConv2d, BeatsLinear
from beats_search.tensors.graph import fold_batch_norms, traced
from beats_search.tensors.seams import Bench
from beats_search.training.batch_norm import with_batch_norm

Settle = Callable[[nn.Module, Tensor], nn.Module]

CASES = {
    "mlp added": lambda: with_batch_norm(Mlp(width=16, depth=2).build((1, 8, 8), 10), "added"),
    "cnn added": lambda: with_batch_norm(Cnn(width=8, dense=16, beats_layers=1).build((1, 8, 8), 10), "added"),
    "resnet removed": lambda: with_batch_norm(Resnet(width=8).build((1, 8, 8), 10), "removed"),
    "torchvision removed": lambda: with_batch_norm(Torchvision(network="mnasnet0_5").build((1, 8, 8), 10), "removed"),
}


def norms(network: nn.Module) -> list[str]:
    """Return the names of all batch norms."""
    return [name for name, layer in network.named_modules() if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d)]


def run(network: nn.Module, images: Tensor) -> Tensor:
    """Return the logits, in eval mode."""
    with torch.inference_mode():
        logits: Tensor = network.eval()(images)
    return logits


def test_added_norms_follow_every_layer_but_the_last() -> None:
    """In a Sequential the next child is the norm; all other names stay, in their order."""
    plain = Cnn(width=4, dense=8, beats_layers=1).build((1, 8, 8), 10)
    normalized = with_batch_norm(plain, "added")
    names = [name for name, _ in normalized.named_children()]
    assert names == [
        *("conv1", "conv1_norm", "relu1", "pool1", "conv2", "conv2_norm", "relu2", "pool2"),
        *("beats1", "flatten", "fc1", "fc1_norm", "relu3", "fc2"),
    ]
    assert [name for name in names if not name.endswith("_norm")] == [name for name, _ in plain.named_children()]


@pytest.mark.parametrize(
    ("layer", "norm"),
    [
        (lambda: BeatsConv2d(6, (3, 3), in_channels=1), nn.BatchNorm2d),
        (lambda: nn.Sequential(nn.Flatten(), BeatsLinear(6, in_features=64)), nn.BatchNorm1d),
    ],
)
def test_a_beats_layer_is_normalized_before_its_activation(
    layer: Callable[[], nn.Module], norm: type[nn.Module]
) -> None:
    """The norm stands inside of the Beats layer, which stays one."""
    network = nn.Sequential(layer(), nn.Flatten(), nn.Linear(1, 3))
    (beats,) = [
        part for part in with_batch_norm(network, "added").modules() if isinstance(part, BeatsConv2d | BeatsLinear)
    ]
    assert [name for name, _ in beats.named_children()] == ["layer", "layer_norm", "activation"]
    assert type(beats.layer_norm) is norm


def test_untrained_norms_change_no_logits() -> None:
    """Before training a norm computes the identity, so the network with norms computes what it did without."""
    images, plain = torch.rand(5, 1, 8, 8), Cnn(width=4).build((1, 8, 8), 10)
    torch.testing.assert_close(run(with_batch_norm(plain, "added"), images), run(plain, images), rtol=1e-4, atol=1e-5)


def test_a_layer_that_has_a_norm_gets_no_second_one() -> None:
    """Where the next layer is a norm already, in a Sequential within another too, none is added."""
    network = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 2, 3)), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 4), nn.ReLU(), nn.Linear(4, 3)
    )
    assert norms(with_batch_norm(network, "added")) == ["1", "3_norm"]


def test_norms_keep_clear_of_shared_children() -> None:
    """A module that stands twice in a Sequential stands there twice after."""
    relu = nn.ReLU()
    network = nn.Sequential(nn.Linear(3, 4), relu, nn.Linear(4, 4), relu, nn.Linear(4, 2))
    names = [name for name, _ in with_batch_norm(network, "added").named_modules(remove_duplicate=False)][1:]
    assert names == ["0", "0_norm", "1", "2", "2_norm", "3", "4"]


@pytest.mark.parametrize(
    ("network", "choice"),
    [
        (Resnet(width=4).build((1, 8, 8), 10), "added"),
        (Resnet(width=4).build((1, 8, 8), 10), "as_built"),
        (Mlp(width=4).build((1, 8, 8), 10), "removed"),
        (Mlp(width=4).build((1, 8, 8), 10), "as_built"),
    ],
)
def test_what_does_not_change_is_returned_itself(network: nn.Module, choice: str) -> None:
    """A network that has norms everywhere gets none; one without any loses none."""
    assert with_batch_norm(network, choice) is network  # type: ignore[arg-type]  # one of the three words


@pytest.mark.parametrize(("network", "choice"), [(Cnn(width=4), "added"), (Resnet(width=4), "removed")])
def test_the_argument_stays_as_it_is(network: Cnn | Resnet, choice: str) -> None:
    """The given network keeps its modules and its weights."""
    built = network.build((1, 8, 8), 10)
    names, weights = dict(built.named_modules()), {key: value.clone() for key, value in built.state_dict().items()}
    changed = with_batch_norm(built, choice)  # type: ignore[arg-type]  # one of the three words
    assert dict(built.named_modules()) == names
    assert all(torch.equal(value, weights[key]) for key, value in built.state_dict().items())
    assert not {id(weight) for weight in changed.parameters()} & {id(weight) for weight in built.parameters()}


class _Attributes(nn.Module):
    """Keeps its layers as attributes, out of any Sequential, and calls them in an order of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.body = nn.Linear(64, 4)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(images.flatten(1)).relu())
        return logits


@pytest.mark.parametrize("network", [_Attributes(), nn.Sequential(nn.Flatten(), nn.Linear(64, 3))])
def test_a_network_without_a_place_for_a_norm_is_refused(network: nn.Module) -> None:
    """The error says where norms can stand."""
    with pytest.raises(ValueError, match=r"no place for a batch norm.*Sequential or a Beats layer.*as_built"):
        with_batch_norm(network, "added")


@pytest.mark.parametrize("case", ["resnet removed", "torchvision removed"])
def test_removed_norms_leave_a_bias(case: str) -> None:
    """No batch norm is left, and every layer can shift its output."""
    network = CASES[case]()
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert not norms(network)
    assert all(isinstance(layer.bias, nn.Parameter) and layer.bias.requires_grad for layer in layers)


def test_an_untrained_network_computes_the_same_without_its_norms() -> None:
    """Before training a norm computes the identity, and the new biases are zeros."""
    images, built = torch.rand(5, 1, 8, 8), Resnet(width=4, blocks=2).build((1, 8, 8), 10)
    torch.testing.assert_close(run(with_batch_norm(built, "removed"), images), run(built, images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_every_parameter_can_be_trained(case: str) -> None:
    """The loss reaches all parameters, new biases and norms among them."""
    torch.manual_seed(0)
    network = CASES[case]().train()
    loss = nn.functional.cross_entropy(network(torch.rand(10, 1, 8, 8)), torch.arange(10))
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


@pytest.mark.parametrize("case", CASES)
def test_nothing_but_layers_is_left_for_a_runtime(case: str, settled: Settle) -> None:
    """Folded, the graph has no norm and no Identity, and computes the same."""
    torch.manual_seed(0)
    images = torch.rand(64, 1, 8, 8)
    network = settled(CASES[case](), images)
    folded = fold_batch_norms(traced(network))
    assert not [layer for layer in folded.modules() if isinstance(layer, nn.Identity)]
    assert not norms(folded)
    torch.testing.assert_close(folded(images), network(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ["mlp added", "cnn added", "resnet removed"])
def test_pruning_narrows_what_was_added_to_or_removed_from(case: str, bench: Bench, settled: Settle) -> None:
    """Pruned by half, the network has about half its weights and still runs."""
    network = settled(CASES[case](), bench.data.train.inputs)
    pruned = ChannelPruning(ratio=0.5, round_to=4).apply(network, bench)
    before, after = (sum(weight.numel() for weight in model.parameters()) for model in (network, pruned))
    assert after < 0.6 * before
    assert run(pruned, bench.data.train.inputs).shape == (256, 10)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["mlp added", "cnn added", "resnet removed"])
def test_int8_kernels_run_what_was_added_to_or_removed_from(
    case: str, bench: Bench, settled: Settle, tmp_path: Path
) -> None:
    """Quantized and exported, the whole network runs on integer kernels and yields the layers' logits."""
    torch.manual_seed(0)
    images = bench.data.train.inputs
    network = settled(CASES[case](), images)
    quantized = quantize(network, images)
    engine = OnnxRuntime().deploy(quantized, images[:1], tmp_path / "model.onnx")
    expected = run(network, images)
    assert engine.executed_as == "int8"
    assert float((engine.logits(images) - expected).abs().mean()) < 0.1 * float(expected.std())


def test_one_input_cannot_be_normalized() -> None:
    """Batches of one and added batch norms exclude each other."""
    plan = TrainingPlan(epochs=1, batch_size=1)
    with pytest.raises(ValueError, match=r"batch_norm: added needs a batch_size of at least 2.*got batch_size=1"):
        replace(plan, batch_norm="added")
