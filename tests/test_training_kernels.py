"""Kernels of a CPU that compute gradients from memory that is not theirs are not trained with."""

import math
from itertools import product

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional
from torchvision.models import resnet18

from beats_search.models.resnet import Resnet
from beats_search.training import precision
from beats_search.training.kernels import Convolution, convolutions
from beats_search.training.precision import Precision, find_numerics

CPU = torch.device("cpu")
EXACT_TO = 0.05
"""Of the largest gradient; bf16 rounds to 0.004."""


def spoil_freed_memory() -> None:
    """Leave NaN in memory of many sizes that is free again."""
    spoilt = [torch.full((count * 2**power,), math.nan) for power in range(6, 21) for count in (1, 1, 3)]
    del spoilt


def gradient(inputs: Tensor, weight: Tensor, stride: int, padding: int, dtype: torch.dtype) -> Tensor:
    """Return the gradient of a convolution's weight, computed in `dtype`."""
    leaf = weight.to(dtype).requires_grad_()
    outputs = functional.conv2d(inputs.to(dtype), leaf, stride=stride, padding=padding)
    backward = torch.randn(outputs.shape, generator=Generator().manual_seed(1)).to(dtype)
    return torch.autograd.grad(outputs, leaf, backward)[0].double()


@pytest.mark.parametrize("channels", [(16, 24), (64, 64)])
def test_kernels_that_are_trusted_in_bf16_are_right(channels: tuple[int, int]) -> None:
    """Whatever memory held before: every trusted gradient of a small map is that of double precision."""
    inputs_of, weights_of, trusted = Generator().manual_seed(2), Generator().manual_seed(3), 0
    for side, kernel, stride in product((1, 2, 3, 4), (1, 3, 5, 7), (1, 2, 3, 4)):
        inputs = torch.randn(8, channels[0], side, side, generator=inputs_of).bfloat16()
        weight = torch.randn(channels[1], channels[0], kernel, kernel, generator=weights_of).bfloat16()
        layer = nn.Conv2d(*channels, kernel, stride=stride, padding=kernel // 2)
        [called] = convolutions(layer, torch.zeros(1, channels[0], side, side))
        if called.fails_in_bf16:
            continue
        trusted += 1
        exact = gradient(inputs, weight, stride, kernel // 2, torch.float64)
        spoil_freed_memory()
        found = gradient(inputs, weight, stride, kernel // 2, torch.bfloat16)
        assert ((found - exact).abs().max() < EXACT_TO * exact.abs().max()).item(), (side, kernel, stride)
    assert trusted > 20


def test_a_layer_is_seen_as_it_is_called() -> None:
    """Sizes, strides and paddings of each dimension, wherever the network calls a convolution."""

    class Calls(nn.Module):
        """A convolution without a layer, after one with a layer."""

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 4, (3, 1), stride=(2, 1), padding=(1, 0))

        def forward(self, inputs: Tensor) -> Tensor:
            return functional.conv2d(self.first(inputs), torch.ones(2, 4, 1, 1), stride=2)

    model = Calls().train()
    first = Convolution(channels=3, size=(6, 5), kernel=(3, 1), stride=(2, 1), padding=(1, 0))
    second = Convolution(channels=4, size=(3, 5), kernel=(1, 1), stride=(2, 2), padding=(0, 0))
    assert convolutions(model, torch.zeros(2, 3, 6, 5)) == (first, second)
    assert model.training


@pytest.mark.parametrize(("side", "trusted"), [(16, False), (32, True)])
@pytest.mark.parametrize("asked", ["auto", "bf16"])
def test_a_network_that_steps_over_a_single_pixel_is_computed_in_float32(
    monkeypatch: pytest.MonkeyPatch, asked: Precision, side: int, *, trusted: bool
) -> None:
    """A resnet18 halves images of 16 pixels to one pixel before its last stage, and steps on; those of 32 to two."""
    monkeypatch.setattr(precision, "has_bf16", lambda _device: True)
    found = find_numerics(asked, resnet18(num_classes=10), (32, 3, side, side), CPU)
    assert found.bf16 == trusted
    assert found.channels_last


@pytest.mark.parametrize(("width", "channels_last"), [(8, False), (16, True)])
def test_narrow_shortcuts_with_a_stride_keep_the_layout_of_torch(width: int, *, channels_last: bool) -> None:
    """With fewer than 16 channels in the last place their gradient would be written past its workspace."""
    model = Resnet(width=width).build((3, 8, 8), 10)
    assert find_numerics("auto", model, (4, 3, 8, 8), CPU).channels_last == channels_last


@pytest.mark.parametrize(
    ("convolution", "fails"),
    [
        (Convolution(channels=16, size=(2, 2, 2), kernel=(3, 3, 3), stride=(1, 1, 1), padding=(1, 1, 1)), True),
        (Convolution(channels=16, size=(4, 4, 4), kernel=(3, 3, 3), stride=(2, 2, 2), padding=(1, 1, 1)), False),
        (Convolution(channels=16, size=(1,), kernel=(3,), stride=(2,), padding=(1,)), True),
        (Convolution(channels=16, size=(2,), kernel=(3,), stride=(2,), padding=(1,)), False),
        (Convolution(channels=16, size=(8, 1), kernel=(3, 3), stride=(2, 2), padding=(1, 1)), True),
        (Convolution(channels=16, size=(1, 1), kernel=(3, 3), stride=(1, 1), padding=(1, 1)), False),
    ],
)
def test_what_fails_in_bf16(convolution: Convolution, *, fails: bool) -> None:
    """Steps beyond the input, rows of weights that meet padding alone, volumes smaller than their kernel."""
    assert convolution.fails_in_bf16 == fails
