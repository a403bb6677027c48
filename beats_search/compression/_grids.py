"""Grids: observed values in, the step that loses least out (smallest mean squared error)."""

import math

import torch
from torch import Tensor, nn

from beats_search.tensors.fake_quant import UINT8_MAX, ActivationQuantizer, largest_step

_SHARES = torch.linspace(0.5, 1.0, 26)  # of the observed range; less than that never pays at 8 bits
_WEIGHT_SHARES = torch.linspace(0.1, 1.0, 46)  # a grid of three values serves most weights best where it clips some
_SAMPLE = 1 << 16


class Observer(nn.Module):
    """Lets values pass and keeps their range and a random sample of them.

    The sample is drawn at random because any fixed stride would keep to a few pixels of each image.
    """

    def __init__(self) -> None:
        """Start without values."""
        super().__init__()
        self.low = torch.tensor(0.0)
        self.high = torch.tensor(0.0)
        self.samples: list[Tensor] = []
        self._random = torch.Generator().manual_seed(0)

    def forward(self, values: Tensor) -> Tensor:
        """Note the values and return them."""
        flat = values.detach().flatten()
        self.low = torch.minimum(self.low, flat.min())
        self.high = torch.maximum(self.high, flat.max())
        if flat.numel() > _SAMPLE:
            flat = flat[torch.randint(flat.numel(), (_SAMPLE,), generator=self._random)]
        self.samples.append(flat.clone())
        return values


def activation_grid(seen: Observer, *, positive: bool, limit: float = math.inf) -> ActivationQuantizer:
    """Return the grid of 256 steps that holds 0 and rounds the observed values with the least error.

    A step is at most `limit` long.
    """
    values = torch.cat(seen.samples)
    low = torch.zeros(()) if positive else seen.low
    span = (seen.high - low).clamp_min(torch.finfo(torch.float32).eps).clamp_max(limit * UINT8_MAX)
    best = min((_grid(share * low, share * span) for share in _SHARES), key=lambda grid: _error(grid, values))
    return best.eval()


def weight_scale(weight: Tensor, bits: int = 8) -> Tensor:
    """Return the step per output channel, shape (out,), that rounds the weight with the least error."""
    most, rows = largest_step(bits), weight.detach().flatten(1)
    largest = rows.abs().amax(dim=1, keepdim=True)
    errors, scales = [], []
    for share in _WEIGHT_SHARES.tolist():
        scale = share * largest / most
        safe = scale.clamp_min(torch.finfo(torch.float32).tiny)
        rounded = torch.clamp(torch.round(rows / safe), -most, most) * safe
        errors.append((rounded - rows).square().mean(dim=1))
        scales.append(scale.flatten())
    return torch.stack(scales).gather(0, torch.stack(errors).argmin(dim=0, keepdim=True)).flatten()


def _grid(low: Tensor, span: Tensor) -> ActivationQuantizer:
    scale = float(span) / UINT8_MAX
    return ActivationQuantizer(scale, min(UINT8_MAX, max(0, round(-float(low) / scale))))


def _error(grid: ActivationQuantizer, values: Tensor) -> float:
    return float((grid(values) - values).square().mean())
