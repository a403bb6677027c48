"""Fake quantization: layers that compute in float exactly what an int8 kernel will compute.

Activations are uint8 per tensor, weights integers of 2 to 8 bits per output channel with zero point 0, biases int32
with the scale input scale × weight scale (Jacob et al. 2018, section 2). `for_export` replaces each
layer by one that says the same in QuantizeLinear and DequantizeLinear nodes, so that a runtime
fuses them into integer kernels.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import TypeAlias, final

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

Product: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Inputs (n, in, …), a weight (out, …) and a bias (out,) to outputs (n, out, …)."""

UINT8_MAX = 255
_BIAS_MAX = 2**30  # leaves a bit of the int32 accumulator to the products


@final
class ActivationQuantizer(nn.Module):
    """Rounds activations to a grid of 256 steps; `zero_point` is the step that stands for 0."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, scale: float, zero_point: int) -> None:
        """Keep the grid. Raises ValueError when the scale is not above 0 or 0 is off the grid."""
        super().__init__()
        if not scale > 0 or not 0 <= zero_point <= UINT8_MAX:
            rule = "an activation grid needs scale > 0 and 0 <= zero_point <= 255"
            raise ValueError(f"{rule}, got scale={scale}, zero_point={zero_point}")
        self.register_buffer("scale", torch.tensor(scale))
        self.register_buffer("zero_point", torch.tensor(zero_point, dtype=torch.uint8))

    def forward(self, values: Tensor) -> Tensor:
        """Return the values on the grid, half to even, of the same shape."""
        zero = self.zero_point.float()
        steps = torch.clamp(torch.round(values / self.scale) + zero, 0, UINT8_MAX)
        return (steps - zero) * self.scale


@final
class QuantizedWeight(nn.Module):
    """An integer weight with a scale per output channel, and its int32 bias."""

    steps: Tensor
    scale: Tensor
    bias_steps: Tensor
    bias_scale: Tensor
    input_scale: Tensor
    output_scale: Tensor | None

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        *,
        scale: Tensor,
        input_scale: Tensor,
        output_scale: Tensor | None = None,
        bits: int = 8,
    ) -> None:
        """Round a float weight (out, …) and bias (out,) to the grids.

        Outputs go to a grid of `output_scale`, or stay float where it is None. A channel whose
        weights are so small that its bias would overflow gets a larger scale.
        """
        super().__init__()
        scale = torch.maximum(scale, bias.abs() / (input_scale * _BIAS_MAX)).clamp_min(torch.finfo(torch.float32).tiny)
        bias_scale = (input_scale * scale).clamp_min(torch.finfo(torch.float32).tiny)
        self.register_buffer("steps", rounded_steps(weight, scale, bits))
        self.register_buffer("scale", scale)
        self.register_buffer("bias_steps", torch.round(bias / bias_scale).to(torch.int32))
        self.register_buffer("bias_scale", bias_scale)
        self.register_buffer("input_scale", input_scale.clone())
        self.register_buffer("output_scale", None if output_scale is None else output_scale.clone())

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return the weight and the bias that the integers stand for."""
        return self.steps.float() * per_channel(self.scale, self.steps), self.bias_steps.float() * self.bias_scale

    def applied(self, values: Tensor, product: Product) -> Tensor:
        """Return the product of values on the input grid with the weight, plus the bias, as an integer kernel does.

        Sums of integers are exact in float32 up to 2**24, so no order of summing shows in them. They are
        scaled once and rounded half to even, by the very factor of ONNX Runtime's QLinearConv and QGemm:
        products that were scaled first would now and then round to the next step.
        """
        sums = product(torch.round(values / self.input_scale), self.steps.float(), self.bias_steps.float())
        if self.output_scale is None:
            return sums * _per_output(self.bias_scale, sums)
        return torch.round(sums * _per_output(self.bias_scale / self.output_scale, sums)) * self.output_scale


@final
class QuantizedConv2d(nn.Module):
    """A Conv2d whose weight and bias lie on integer grids; the input is expected on its own grid."""

    def __init__(self, conv: nn.Conv2d, weight: QuantizedWeight) -> None:
        """Take the geometry of `conv`, and the weight with its bias."""
        super().__init__()
        self.geometry = (conv.stride, conv.padding, conv.dilation)
        self.out_channels = conv.out_channels
        self.groups = conv.groups
        self.weight: QuantizedWeight | _ExportedWeight = weight

    def forward(self, values: Tensor) -> Tensor:
        """Return the convolution of (n, in, height, width)."""
        stride, padding, dilation = self.geometry
        conv = partial(F.conv2d, stride=stride, padding=padding, dilation=dilation, groups=self.groups)
        return self.weight.applied(values, conv)


@final
class QuantizedLinear(nn.Module):
    """A Linear whose weight and bias lie on integer grids; the input is expected on its own grid."""

    def __init__(self, weight: QuantizedWeight) -> None:
        """Take the weight with its bias."""
        super().__init__()
        self.weight: QuantizedWeight | _ExportedWeight = weight

    def forward(self, values: Tensor) -> Tensor:
        """Return the product of (n, in) with the weight, plus the bias: (n, out)."""
        return self.weight.applied(values, F.linear)


def rounded_steps(weight: Tensor, scale: Tensor, bits: int) -> Tensor:
    """Return a weight (out, …) in whole steps of `scale` (out,), int8, on the grid of a bit-width."""
    most = largest_step(bits)
    return torch.clamp(torch.round(weight / per_channel(scale, weight)), -most, most).to(torch.int8)


def largest_step(bits: int) -> int:
    """Return the largest integer of a symmetric grid: its opposite must be on it, whichever sign a norm has."""
    return int(2 ** (bits - 1) - 1)


def per_channel(values: Tensor, weight: Tensor) -> Tensor:
    """Return values of shape (out,) in a shape that fits a weight (out, …)."""
    return values.reshape(-1, *[1] * (weight.dim() - 1))


def _per_output(values: Tensor, outputs: Tensor) -> Tensor:
    """Return values of shape (out,) in a shape that fits outputs (n, out, …)."""
    return values.reshape(-1, *[1] * (outputs.dim() - 2))


@final
class GlobalAveragePool(nn.Module):
    """Mean over height and width, kept as 1×1: what ONNX calls GlobalAveragePool."""

    def forward(self, values: Tensor) -> Tensor:
        """Turn (n, channels, height, width) into (n, channels, 1, 1)."""
        return values.mean(dim=(2, 3), keepdim=True)


def for_export(model: nn.Module) -> nn.Module:
    """Return a copy in which grids, integer weights and global pools write their own ONNX nodes."""
    exported = copy.deepcopy(model)
    for name, module in list(exported.named_modules()):
        replacement = _exported(module)
        if replacement is not None:
            exported.set_submodule(name, replacement)
    return exported


def is_global_pool(module: nn.Module | None) -> bool:
    """Tell whether a module averages over height and width and keeps both as 1."""
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return module.output_size in {1, (1, 1)}
    return isinstance(module, GlobalAveragePool)


def _exported(module: nn.Module) -> nn.Module | None:
    match module:
        case ActivationQuantizer():
            return _ExportedQuantizer(module)
        case QuantizedWeight():
            return _ExportedWeight(module)
    return _ExportedPool() if is_global_pool(module) else None


@final
class _ExportedQuantizer(nn.Module):
    scale: Tensor
    zero_point: Tensor

    def __init__(self, quantizer: ActivationQuantizer) -> None:
        super().__init__()
        self.register_buffer("scale", quantizer.scale)
        self.register_buffer("zero_point", quantizer.zero_point)

    def forward(self, values: Tensor) -> Tensor:
        inputs = (values, self.scale, self.zero_point)
        steps = torch.onnx.ops.symbolic("QuantizeLinear", inputs, dtype=torch.uint8, shape=values.shape)
        return _dequantized(steps, self.scale, self.zero_point)


@final
class _ExportedWeight(nn.Module):
    steps: Tensor
    scale: Tensor
    zero_point: Tensor
    bias_steps: Tensor
    bias_scale: Tensor
    bias_zero_point: Tensor

    def __init__(self, weight: QuantizedWeight) -> None:
        super().__init__()
        for name in ("steps", "scale", "bias_steps", "bias_scale"):
            self.register_buffer(name, getattr(weight, name))
        self.register_buffer("zero_point", torch.zeros_like(weight.scale, dtype=torch.int8))
        self.register_buffer("bias_zero_point", torch.zeros_like(weight.bias_steps))

    def forward(self) -> tuple[Tensor, Tensor]:
        weight = _dequantized(self.steps, self.scale, self.zero_point)
        bias = _dequantized(self.bias_steps, self.bias_scale, self.bias_zero_point)
        return weight, bias

    def applied(self, values: Tensor, product: Product) -> Tensor:
        weight, bias = self()
        return product(values, weight, bias)


@final
class _ExportedPool(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        shape = (*values.shape[:2], 1, 1)
        return torch.onnx.ops.symbolic("GlobalAveragePool", (values,), dtype=values.dtype, shape=shape)


def _dequantized(steps: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    return torch.onnx.ops.symbolic(
        "DequantizeLinear",
        (steps, scale, zero_point),
        attrs={"axis": 0} if scale.dim() else {},
        dtype=torch.float32,
        shape=steps.shape,
    )
