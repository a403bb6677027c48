"""Placement: every layer on images or rows becomes an integer layer with its own bits, whatever its input is from."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

from beats_search.compression._conversion import freeze, learn_grids, quantize
from beats_search.compression._mixed import integer_layers
from beats_search.compression.quantization import Quantization
from beats_search.tensors.fake_quant import largest_step
from beats_search.tensors.seams import Bench

WIDTHS = (2, 3, 4, 6, 8)


class _Largest(nn.Module):
    """Takes the largest value of each channel, which comes with its place, into linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.hidden, self.last = nn.Conv2d(1, 8, 3), nn.Linear(8, 16), nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        values = torch.relu(self.conv(images)).flatten(2).max(2)[0]
        logits: Tensor = self.last(torch.relu(self.hidden(values)))
        return logits


class _Recurrent(nn.Module):
    """Reads the columns of feature maps one by one; the LSTM in the middle stays float."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lstm = nn.Conv2d(1, 4, 3), nn.LSTM(24, 8, batch_first=True)
        self.hidden, self.last = nn.Linear(8, 16), nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        maps = torch.relu(self.conv(images))
        columns = self.lstm(maps.permute(0, 3, 1, 2).flatten(2))[0]
        logits: Tensor = self.last(torch.relu(self.hidden(columns[:, -1])))
        return logits


class _Halves(nn.Module):
    """Gives one half of a layer's output to a layer, and both to the last."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.hidden, self.last = nn.Linear(64, 16), nn.Linear(8, 8), nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        left, right = torch.relu(self.first(images.flatten(1))).chunk(2, 1)
        logits: Tensor = self.last(torch.cat([self.hidden(left), right], 1))
        return logits


NETWORKS: list[type[nn.Module]] = [_Largest, _Recurrent, _Halves]


def _float_layers(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


@pytest.mark.parametrize("network", NETWORKS)
def test_layers_behind_what_yields_several_values_are_integer_layers(
    network: Callable[[], nn.Module], bench: Bench
) -> None:
    """One of several outputs gets a grid as any value does, so no convolution or linear layer stays float."""
    torch.manual_seed(0)
    model, images = network().eval(), bench.data.train.inputs
    quantized = quantize(model, images)
    with torch.inference_mode():
        expected, got = model(images), quantized(images)
    assert not _float_layers(quantized)
    assert (got - expected).abs().mean() < 0.1 * expected.std()


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("bits", [(2, 4, 8), (8, 3, 2), (3, 8, 6)])
def test_each_layer_has_the_bits_that_were_given_for_it(
    network: Callable[[], nn.Module], bits: tuple[int, int, int]
) -> None:
    """In the order of calls every layer's integers fill the grid of its own width and no wider one."""
    torch.manual_seed(0)
    model, images = network().eval(), torch.rand(16, 1, 8, 8)
    for quantized in (quantize(model, images, bits), freeze(learn_grids(model, images, bits))):
        assert isinstance(quantized, fx.GraphModule)
        largest = [int(each.steps.abs().max()) for each in integer_layers(quantized)]
        assert largest == [largest_step(each) for each in bits]


@pytest.mark.parametrize("network", NETWORKS)
def test_mixed_bits_keep_to_their_average(network: Callable[[], nn.Module], bench: Bench) -> None:
    """Where some operations stay float, all integer layers take part, and a weight has at most the average bits."""
    torch.manual_seed(0)
    quantized = Quantization(bits="mixed", average_bits=4.0).apply(network().eval(), bench)
    assert isinstance(quantized, fx.GraphModule)
    layers = integer_layers(quantized)
    widths = [min(width for width in WIDTHS if int(each.steps.abs().max()) <= largest_step(width)) for each in layers]
    sizes = [each.steps.numel() for each in layers]
    assert len(layers) == len(_float_layers(network()))
    assert sum(size * width for size, width in zip(sizes, widths, strict=True)) <= 4.0 * sum(sizes)
