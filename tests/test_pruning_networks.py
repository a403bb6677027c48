"""Channel pruning of networks as they are: residual, depthwise, gated, shuffled, grouped."""

import copy
from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from beats_search import plugins
from beats_search.compression._coupling import coupled_layers
from beats_search.compression._importance import Criterion
from beats_search.compression._layers import hidden_layers, width_of
from beats_search.compression.channel_pruning import ChannelPruning
from beats_search.records.errors import TrialError
from beats_search.records.part import Part
from beats_search.tensors.data import DataBundle, Split, Standardize
from beats_search.tensors.network import macs, with_preprocess
from beats_search.tensors.seams import Bench

SHAPE = (3, 32, 32)
EXAMPLE = torch.zeros(1, *SHAPE)
OWN = ("mlp", "cnn", "resnet")
TORCHVISION = ("resnet18", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "shufflenet_v2_x0_5")


def _network(name: str) -> nn.Module:
    torch.manual_seed(0)
    part = Part(name=name) if name in OWN else Part(name="torchvision", settings=(("network", name),))
    return with_preprocess(Standardize([0.5] * 3, [0.3] * 3), plugins.make("models", part).build(SHAPE, 10)).eval()


def _bench() -> Bench:
    images = torch.rand(32, *SHAPE, generator=torch.Generator().manual_seed(0))
    split = Split(inputs=images, labels=torch.arange(32) % 10)
    classes = tuple("abcdefghij")
    data = DataBundle(train=split, validation=split, test=split, classes=classes, preprocess=nn.Identity())
    return Bench(data=data, fine_tune=lambda model, *_, **__: model, seed=0)


def _logits(model: nn.Module, count: int = 2) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model(torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1)))
    return logits


def _total_width(model: nn.Module) -> int:
    return sum(width_of(layer) for layer in hidden_layers(model, EXAMPLE).values())


@pytest.mark.slow
@pytest.mark.parametrize("name", [*OWN, *TORCHVISION, "resnext50_32x4d"])
def test_removed_channels_are_gone_and_the_rest_still_runs(name: str) -> None:
    """By half there are fewer channels and multiply-accumulates, and ten logits, which depend on the image."""
    model = _network(name)
    pruned = ChannelPruning(ratio=0.5, round_to=8).apply(model, _bench())
    assert macs(pruned, EXAMPLE) < 0.6 * macs(model, EXAMPLE)
    assert _total_width(pruned) < 0.75 * _total_width(model)
    first, second = _logits(pruned)
    assert first.shape == (10,)
    assert not torch.equal(first, second)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "criterion"),
    [("shufflenet_v2_x0_5", "taylor"), *(("mobilenet_v3_small", criterion) for criterion in get_args(Criterion))],
)
def test_every_criterion_ranks_any_network(name: str, criterion: Criterion) -> None:
    """Ranked together by any criterion, in two steps, a network gets smaller and runs."""
    model = _network(name)
    technique = ChannelPruning(ratio=0.5, round_to=8, ranking="global", recovery_epochs=2, steps=2, criterion=criterion)
    pruned = technique.apply(model, _bench())
    assert macs(pruned, EXAMPLE) < macs(model, EXAMPLE)
    assert _logits(pruned).shape == (2, 10)


def _silenced(model: nn.Module, places: dict[str, list[int]]) -> nn.Module:
    """Return a copy in which the channels at these places are zero wherever they are made."""
    silenced = copy.deepcopy(model).requires_grad_(requires_grad=True)
    for each in coupled_layers(silenced, EXAMPLE, hidden_layers(silenced, EXAMPLE)):
        group = each.group
        for dep, channels in group._DG.get_pruning_group(
            group[0].dep.target.module, group[0].dep.handler, places[each.name]
        ):
            if group._DG.is_out_channel_pruning_fn(dep.handler):
                for tensor in dep.target.module.parameters():
                    tensor.data[channels] = 0
    return silenced


@pytest.mark.slow
@pytest.mark.parametrize("name", [*OWN, *TORCHVISION, "googlenet"])
def test_a_network_without_channels_is_one_in_which_they_are_zero(name: str) -> None:
    """Removing channels that are silent in the larger network changes no logit: none is taken for another."""
    model = _network(name)
    narrower = copy.deepcopy(model).requires_grad_(requires_grad=True)
    coupled = coupled_layers(narrower, EXAMPLE, hidden_layers(narrower, EXAMPLE))
    random = torch.Generator().manual_seed(2)
    places = {each.name: torch.randperm(each.width, generator=random)[: each.width // 2].tolist() for each in coupled}
    silenced = _silenced(model, places)
    narrower.load_state_dict(silenced.state_dict())
    for each in coupled:
        each.remove(sorted(places[each.name]))
    assert macs(narrower, EXAMPLE) < macs(model, EXAMPLE)
    expected = _logits(silenced)
    assert expected.std() > 0
    torch.testing.assert_close(_logits(narrower), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_what_passes_a_shuffle_keeps_its_width() -> None:
    """In ShuffleNet the channels inside of branches go, those that are shuffled stay."""
    model = _network("shufflenet_v2_x0_5")
    pruned = ChannelPruning(ratio=0.5, round_to=4).apply(model, _bench())
    widths = {name: width_of(layer) for name, layer in hidden_layers(pruned, EXAMPLE).items()}
    assert widths["network.stage2.1.branch2.0"] == widths["network.stage2.1.branch2.3"] == 12
    assert widths["network.stage2.1.branch2.5"] == 24


@pytest.mark.parametrize("shuffle", [nn.ChannelShuffle(4), nn.PixelShuffle(2)])
def test_shuffles_as_modules_are_fenced_too(shuffle: nn.Module) -> None:
    """Only the layer after the shuffle gets narrower, since what the shuffle does to channels is not followed."""
    torch.manual_seed(0)
    after = 16 if isinstance(shuffle, nn.ChannelShuffle) else 4
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3), shuffle, nn.Conv2d(after, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)
    ).eval()
    pruned = ChannelPruning(ratio=0.5, round_to=1).apply(network, _bench())
    assert [width_of(layer) for layer in hidden_layers(pruned, EXAMPLE).values()] == [16, 8]


class _Multiplied(nn.Module):
    """Computes with its weights directly, behind the back of its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(3 * 32 * 32, 32), nn.Linear(32, 16), nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.nn.functional.linear(self.first(images.flatten(1)), self.second.weight)
        logits: Tensor = self.out(hidden)
        return logits


def test_a_network_that_cannot_be_followed_is_told_so() -> None:
    """A network that uses weights outside of their layers is refused instead of broken."""
    with pytest.raises(TrialError, match="cannot be followed"):
        ChannelPruning(ratio=0.5, round_to=1).apply(_Multiplied().eval(), _bench())


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.9])
def test_grouped_convolutions_keep_whole_groups(ratio: float) -> None:
    """A width stays a multiple of the groups, and no smaller than `round_to`."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 36, 3), nn.Conv2d(36, 36, 3, groups=6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(36, 10)
    ).eval()
    pruned = ChannelPruning(ratio=ratio, round_to=8).apply(network, _bench())
    widths = [width_of(layer) for layer in hidden_layers(pruned, EXAMPLE).values()]
    assert all(width % 12 == 0 and 12 <= width <= 36 for width in widths)
    assert _logits(pruned).shape == (2, 10)
