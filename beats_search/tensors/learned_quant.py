"""Learned quantization: layers that train on integer grids whose steps are learned with the weights.

Steps are learned as in LSQ (Esser et al. 2020, sections 2.1 and 2.2), one per output channel of a
weight and one per activation. Here a step is its first value times a factor between 1/2 and 2, and the
parameter, which begins at 0, is the factor's logarithm as long as it is small: an optimizer that moves
every parameter by its rate then moves all steps by the same share, weight decay pulls towards the first
value, and the rates that train a network from scratch cannot make a step vanish or swallow its channel.
Batch norms stay live during training and are folded when the grids are frozen: the integers change
sign where the norm's factor is negative, and the step takes its size.
"""

import math
from functools import partial
from typing import Any, Final, final

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn
from torch.nn import Parameter

from beats_search.tensors.fake_quant import (
    UINT8_MAX,
    ActivationQuantizer,
    QuantizedConv2d,
    QuantizedLinear,
    QuantizedWeight,
    largest_step,
    per_channel,
    rounded_steps,
)
from beats_search.tensors.graph import Layer, Norm

_FARTHEST: Final = math.log(2.0)
"""The bound of a factor's logarithm."""


@final
class NormedLayer(nn.Module):
    """A convolution or linear layer and the batch norm that follows it, as one layer."""

    def __init__(self, layer: Layer, norm: Norm) -> None:
        """Take both as they are."""
        super().__init__()
        self.layer, self.norm = layer, norm

    def forward(self, values: Tensor) -> Tensor:
        """Return what the norm makes of the layer's output."""
        normed: Tensor = self.norm(self.layer(values))
        return normed


@final
class LearnedGrid(nn.Module):
    """Rounds activations to 256 steps of a learned size; `limit` is the largest size that a step may have."""

    first: Tensor
    zero_point: Tensor

    def __init__(self, grid: ActivationQuantizer, *, limit: float = math.inf) -> None:
        """Begin with the steps of an observed grid."""
        super().__init__()
        self.register_buffer("first", grid.scale.clone())
        self.register_buffer("zero_point", grid.zero_point.clone())
        self.shift = Parameter(torch.zeros(()))
        self.limit = limit

    @property
    def scale(self) -> Tensor:
        """The size of a step, of shape ()."""
        return (self.first * _factor(self.shift)).clamp_max(self.limit)

    def forward(self, values: Tensor) -> Tensor:
        """Return the values on the grid, of the same shape; gradients pass where they are within its range."""
        share = 1 / (float(self.first) ** 2 * math.sqrt(values.numel() / len(values) * UINT8_MAX))
        zero = float(self.zero_point)
        rounded: Tensor = _Rounded.apply(values, self.scale, -zero, UINT8_MAX - zero, share)
        return rounded

    def frozen(self) -> ActivationQuantizer:
        """Return the grid as it stands."""
        return ActivationQuantizer(float(self.scale.detach()), int(self.zero_point))


@final
class LearnedLayer(nn.Module):
    """A convolution or linear layer, with or without a batch norm, whose weight is rounded to learned steps."""

    first: Tensor

    def __init__(self, layer: Layer, norm: Norm | None, *, bits: int, scale: Tensor) -> None:
        """Begin with the steps `scale`, one per output channel, of shape (out,)."""
        super().__init__()
        self.layer, self.norm, self.bits = layer, norm, bits
        self.register_buffer("first", scale.clamp_min(torch.finfo(torch.float32).tiny))
        self.shift = Parameter(torch.zeros_like(scale))

    @property
    def scale(self) -> Tensor:
        """The size of a step per output channel, of shape (out,)."""
        return self.first * _factor(self.shift)

    def forward(self, values: Tensor) -> Tensor:
        """Return the layer's output with the rounded weight, normed."""
        most, weight = largest_step(self.bits), self.layer.weight
        share = (1 / (self.first.square() * math.sqrt(weight[0].numel() * most))).clamp_max(_MOST)
        rounded = _Rounded.apply(weight, per_channel(self.scale, weight), -most, most, per_channel(share, weight))
        output = _applied(self.layer, values, rounded)
        return output if self.norm is None else self.norm(output)

    def frozen(self, input_scale: Tensor, output_scale: Tensor | None = None) -> QuantizedConv2d | QuantizedLinear:
        """Return the integer layer, the norm folded in, between grids whose steps have these sizes; None is no grid."""
        weight, scale = self.layer.weight.detach(), self.scale.detach()
        steps = rounded_steps(weight, scale, self.bits).float()
        bias = torch.zeros_like(scale) if self.layer.bias is None else self.layer.bias.detach()
        if self.norm is not None:
            factor, shift = _affine(self.norm)
            steps, scale = steps * per_channel(factor.sign(), weight), scale * factor.abs()
            bias = bias * factor + shift
        folded = steps * per_channel(scale, weight)
        integers = QuantizedWeight(
            folded, bias, scale=scale, input_scale=input_scale, output_scale=output_scale, bits=self.bits
        )
        return QuantizedConv2d(self.layer, integers) if isinstance(self.layer, nn.Conv2d) else QuantizedLinear(integers)


def _factor(shift: Tensor) -> Tensor:
    """Return exp(shift) for small shifts; large ones are bent towards the bounds (softsign), where gradients fade."""
    return torch.exp(shift / (1 + shift.abs() / _FARTHEST))


_MOST: Final = 1e12
"""Of a gradient's factor: a channel of zeros has no size that a step could be a share of."""


class _Rounded(torch.autograd.Function):
    """Round to a grid; pass gradients straight through within it, and to the step as LSQ defines it."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - fixed by torch
        values: Tensor,
        scale: Tensor,
        low: float,
        high: float,
        share: Tensor | float,
    ) -> Tensor:
        steps = values.detach() / scale
        ctx.save_for_backward(steps, scale)
        ctx.low, ctx.high, ctx.share = low, high, share
        return torch.round(steps).clamp_(low, high).mul_(scale).to(values.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:  # noqa: ANN401 - fixed
        (gradient,), (steps, scale) = gradients, ctx.saved_tensors
        within = partial(torch.ops.aten.hardtanh_backward, self=steps, **_bounds(ctx.low, ctx.high, steps.dtype))
        moved = steps.clamp(ctx.low, ctx.high).round_().sub_(within(steps)).mul_(gradient)
        of_scale = moved.sum_to_size(scale.shape).float()  # summed in float32 in any case
        return within(gradient), of_scale * ctx.share, None, None, None


def _bounds(low: float, high: float, kind: torch.dtype) -> dict[str, float]:
    """Return the numbers next to a range that begins at 0 or below: torch's kernel leaves its bounds themselves out.

    The kernel passes a gradient through or not in one pass; masks of a type of their own take four times as long.
    The number below 0 is the first that a CPU does not treat as a slow special case.
    """
    ends = torch.tensor([low, high], dtype=kind)
    below, above = torch.nextafter(ends, torch.tensor([-math.inf, math.inf], dtype=kind)).tolist()
    return {"min_val": min(below, -torch.finfo(kind).tiny), "max_val": above}


def _applied(layer: Layer, values: Tensor, weight: Tensor) -> Tensor:
    if isinstance(layer, nn.Linear):
        return F.linear(values, weight, layer.bias)
    return F.conv2d(values, weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def _affine(norm: Norm) -> tuple[Tensor, Tensor]:
    """Return what a norm in eval mode multiplies by and adds, each of shape (channels,)."""
    factor = torch.rsqrt(norm.get_buffer("running_var") + norm.eps)
    if norm.affine:
        factor = factor * norm.weight.detach()
    shift = -norm.get_buffer("running_mean") * factor
    return factor, shift + norm.bias.detach() if norm.affine else shift
