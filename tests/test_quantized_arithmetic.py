"""Quantized arithmetic: integer layers compute in torch what integer kernels compute."""

import numpy as np
import torch
from torch import Tensor, nn

from beats_search.compression._conversion import quantize
from beats_search.compression._grids import weight_scale
from beats_search.compression._mixed import integer_layers
from beats_search.tensors.fake_quant import ActivationQuantizer, QuantizedLinear, QuantizedWeight


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
