"""Precision: a machine, a model and the size of a batch in; how to compute it fast out, by rule alone.

No timing is involved, so that equal plans are computed alike on equal machines. The rules are from
measurements of whole training steps on a Zen 4 CPU (avx512_bf16), 1 and 2 threads: channels_last
was never slower for convolutional networks in float32, and bf16 paid from about 100 million
multiply-accumulates per batch on (1.1 to 2 times as fast), below which its casts cost what they save.
A second thread pays from about the same size on; below it, it costs a tenth or more. Where a kernel of
the CPU cannot be trusted (`kernels.py`), neither is chosen, whoever asks for it.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Final, Literal, final

import torch
from torch import Tensor, nn

from beats_search.tensors.data import to_float
from beats_search.tensors.network import macs
from beats_search.training.kernels import convolutions

MACS_WORTH_IT: Final = 100_000_000
"""Multiply-accumulates of one forward pass of a batch, from which on bf16 and further threads pay."""

Precision = Literal["auto", "fp32", "bf16"]
"""As a plan asks for it."""

_BF16_INSTRUCTIONS: Final = ("avx512_bf16", "amx_bf16")
_CHANNELS_LAST: Final = ("cpu", "cuda")
_IMAGE_RANK: Final = 4


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Numerics:
    """How a model is computed: with bf16 autocast, channels in the last place, all threads, or not."""

    bf16: bool = False
    channels_last: bool = False
    parallel: bool = True

    def prepared(self, model: nn.Module) -> nn.Module:
        """Return the model itself, its convolution weights laid out to match."""
        return model.to(memory_format=torch.channels_last) if self.channels_last else model

    def logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Return the float32 logits of a batch of inputs, which are uint8 or float in [0, 1]."""
        batch = to_float(inputs)
        if self.channels_last and batch.ndim == _IMAGE_RANK:
            batch = batch.contiguous(memory_format=torch.channels_last)
        if not self.bf16:  # a context that changes nothing still costs a fifth of a small network's forward pass
            logits: Tensor = model(batch)
            return logits.float()
        with torch.autocast(inputs.device.type, torch.bfloat16):
            logits = model(batch)
        return logits.float()


PLAIN: Final = Numerics()
"""Float32 in torch's own layout."""


def find_numerics(
    precision: Precision, model: nn.Module, batch_shape: tuple[int, ...], device: torch.device
) -> Numerics:
    """Return how to compute batches of that shape on a device where `model` already is."""
    images, inputs = batch_shape[0], torch.zeros(1, *batch_shape[1:], device=device)
    large = images * macs(model, inputs) >= MACS_WORTH_IT
    called = convolutions(model, inputs) if device.type == "cpu" else ()
    channels_last = (
        device.type in _CHANNELS_LAST
        and not any(each.fails_in_channels_last for each in called)
        and _takes_channels_last(model, batch_shape, device)
    )
    trusted = not any(each.fails_in_bf16 for each in called)
    match precision:
        case "fp32":
            bf16 = False
        case "bf16":
            bf16 = trusted
        case "auto":
            bf16 = trusted and large and has_bf16(device)
    return Numerics(bf16=bf16, channels_last=channels_last, parallel=large)


def has_bf16(device: torch.device) -> bool:
    """Tell whether a device has instructions for bf16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return any(torch.cpu.get_capabilities().get(name, False) for name in _BF16_INSTRUCTIONS)
    return False


def _takes_channels_last(model: nn.Module, batch_shape: tuple[int, ...], device: torch.device) -> bool:
    """Tell whether a model convolves images and never asks for a `view` that only torch's own layout has."""
    if len(batch_shape) != _IMAGE_RANK or not any(isinstance(layer, nn.Conv2d) for layer in model.modules()):
        return False
    laid_out = deepcopy(model).eval().to(memory_format=torch.channels_last)
    images = torch.zeros(2, *batch_shape[1:], device=device)
    try:
        with torch.inference_mode():
            laid_out(images.contiguous(memory_format=torch.channels_last))
    except RuntimeError:
        return False
    return True
