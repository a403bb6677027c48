"""Kernels: a model and one of its batches in, which of torch's convolutions on a CPU cannot be trusted with it out.

Two kernels of oneDNN, as torch 2.15 calls them, compute gradients of weights from memory that is not
theirs. Nothing is raised; now and then a gradient is huge or not a number, and training diverges.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from beats_search.tensors.network import call_once

_BLOCK: Final = 16
_VOLUME_RANK: Final = 3


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    """One call of a convolution: its input channels, and per dimension of space what it went over, and how."""

    channels: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    @property
    def fails_in_bf16(self) -> bool:
        """Tell whether a gradient in bf16 may be of memory that nobody wrote.

        Seen (avx512_bf16, memory filled with NaN before each call, against float64) where a step is
        longer than the input, where a row of weights meets nothing but padding, and for volumes that
        are smaller than the kernel; never elsewhere, never in float32.
        """
        if len(self.size) == _VOLUME_RANK:
            return any(kernel > size for kernel, size in zip(self.kernel, self.size, strict=True))
        ways = zip(self.size, self.stride, self.padding, strict=True)
        return any(stride > size or padding > size for size, stride, padding in ways)

    @property
    def fails_in_channels_last(self) -> bool:
        """Tell whether the gradient may write past its workspace with channels in the last place.

        So do kernels of 1 pixel with a stride and fewer channels than a register holds (oneDNN, issue 6035).
        """
        return max(self.kernel) == 1 < max(self.stride) and self.channels < _BLOCK


def convolutions(model: nn.Module, example: Tensor) -> tuple[Convolution, ...]:
    """Return the convolutions that a model calls for a batch of inputs; its mode and its state are not touched."""
    with _Listening() as listening:
        call_once(model, example)
    return tuple(listening.heard)


@final
class _Listening(TorchDispatchMode):  # type: ignore[no-untyped-call]  # by torch
    """Write down the convolutions that are called."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # by torch
        self.heard: list[Convolution] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        if func is torch.ops.aten.convolution.default:
            inputs, weight, _bias, stride, padding = args[:5]
            rank = weight.ndim - 2
            self.heard.append(
                Convolution(
                    channels=inputs.shape[1],
                    size=tuple(inputs.shape[2:]),
                    kernel=tuple(weight.shape[2:]),
                    stride=_each(stride, rank),
                    padding=_each(padding, rank),
                )
            )
            return func(*args, **(kwargs or {}))
        with self:  # in inference mode operators arrive whole, with convolutions within
            parts = func.decompose(*args, **(kwargs or {})) if isinstance(func, OpOverload) else NotImplemented
        return func(*args, **(kwargs or {})) if parts is NotImplemented else parts


def _each(setting: Sequence[int], rank: int) -> tuple[int, ...]:
    """Return a setting for every dimension of space; one that holds for all is given once."""
    return tuple(setting) * rank if len(setting) == 1 else tuple(setting)
