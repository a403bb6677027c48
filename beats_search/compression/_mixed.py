"""Mixed precision: an 8-bit model and validation inputs in, the bits of each layer's weight out.

Every layer is tried at every width alone, all others at 8 bits, and the loss on validation inputs
says how much it minds. Then bits are taken where they cost least per bit saved, until the average is reached.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from beats_search.compression._grids import weight_scale
from beats_search.tensors.data import Split, to_float
from beats_search.tensors.fake_quant import QuantizedConv2d, QuantizedLinear, QuantizedWeight

WIDTHS: Final = (8, 6, 4, 3, 2)
_INPUTS: Final = 256


def mixed_bits(model: fx.GraphModule, validation: Split, average: float) -> tuple[int, ...]:
    """Return the bits of each integer layer of an 8-bit model, in the order in which they are called.

    A weight has at most `average` bits in the mean over all weights.
    """
    layers = integer_layers(model)
    sizes = [int(layer.steps.numel()) for layer in layers]
    few = validation.drawn(_INPUTS, seed=0)
    images, labels = to_float(few.inputs), few.labels
    with torch.inference_mode():
        losses = [_losses(model, layer, images, labels) for layer in layers]
    return allocate(sizes, losses, average)


def integer_layers(model: fx.GraphModule) -> list[QuantizedWeight]:
    """Return the weights of all integer layers in the order in which they are called."""
    modules = dict(model.named_modules())
    called = [modules.get(str(node.target)) for node in model.graph.nodes if node.op == "call_module"]
    return [
        layer.weight
        for layer in called
        if isinstance(layer, QuantizedConv2d | QuantizedLinear) and isinstance(layer.weight, QuantizedWeight)
    ]


def allocate(sizes: Sequence[int], losses: Sequence[Mapping[int, float]], average: float) -> tuple[int, ...]:
    """Return bits per layer from the numbers of weights and the loss of each layer at each width.

    Greedy: the next narrower width is taken where the loss rises least per bit saved.
    """
    chosen = [0] * len(sizes)
    budget = average * sum(sizes)
    while sum(size * WIDTHS[at] for size, at in zip(sizes, chosen, strict=True)) > budget:
        open_layers = [index for index, at in enumerate(chosen) if at + 1 < len(WIDTHS)]
        if not open_layers:
            break
        chosen[min(open_layers, key=lambda index: _price(sizes[index], losses[index], chosen[index]))] += 1
    return tuple(WIDTHS[at] for at in chosen)


def _price(size: int, loss: Mapping[int, float], at: int) -> float:
    """Return what the loss rises by, per bit saved, where a layer takes its next narrower width."""
    wide, narrow = WIDTHS[at], WIDTHS[at + 1]
    return (loss[narrow] - loss[wide]) / (size * (wide - narrow))


def _losses(model: nn.Module, layer: QuantizedWeight, images: Tensor, labels: Tensor) -> dict[int, float]:
    """Return the mean loss with one layer at each width, and leave the layer as it was."""
    kept = copy.deepcopy(layer.state_dict())
    weight, bias = layer()
    found = {}
    for bits in WIDTHS:
        if bits < max(WIDTHS):
            narrow = QuantizedWeight(
                weight,
                bias,
                scale=weight_scale(weight, bits),
                input_scale=layer.input_scale,
                output_scale=layer.output_scale,
                bits=bits,
            )
            layer.load_state_dict(narrow.state_dict())
        found[bits] = float(functional.cross_entropy(model(images), labels))
    layer.load_state_dict(kept)
    return found
