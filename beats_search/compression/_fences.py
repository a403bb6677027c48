"""Fences: a network in, the same one with a layer wherever channels change places out; to be traced, not to be run.

The library that removes channels follows them through layers, sums and concatenations, not through
what rearranges them, such as the shuffles of ShuffleNet. Behind a fence begin other channels.
"""

from collections.abc import Callable
from typing import Any, Final, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_IMAGE_RANK: Final = 4
_REARRANGING: Final = frozenset({torch.channel_shuffle, torch.pixel_shuffle, torch.pixel_unshuffle})


@final
class Fenced(nn.Module):
    """A network with a fence before and after each operation that makes images to more dimensions, and back."""

    def __init__(self, network: nn.Module, example: Tensor) -> None:
        """Find out on `example`, one input with its batch dimension, where fences are needed."""
        super().__init__()
        self.network = network
        self.fences = nn.ModuleList()
        with torch.no_grad():
            self(example)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what has the shape of the network's logits, and depends on every layer as they do."""
        with _Fencing(self.fences):
            logits: Tensor = self.network(inputs)
        return logits


@final
class _Fencing(TorchFunctionMode):
    """Passes images through a fence of their own before and after each operation that may rearrange them."""

    def __init__(self, fences: nn.ModuleList) -> None:
        super().__init__()
        self._fences = fences
        self._passed = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401 - fixed by torch
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - fixed by torch
        del types
        settings = kwargs or {}
        result = func(*args, **settings)
        if not (_rearranges(func, args, result)):
            return result
        return self._behind(func(self._behind(args[0]), *args[1:], **settings))

    def _behind(self, values: Tensor) -> Tensor:
        if values.ndim != _IMAGE_RANK:
            return values
        if self._passed == len(self._fences):
            self._fences.append(nn.Conv2d(values.shape[1], values.shape[1], kernel_size=1))
        self._passed += 1
        fenced: Tensor = self._fences[self._passed - 1](values)
        return fenced


def _rearranges(func: Callable[..., Any], args: tuple[Any, ...], result: object) -> bool:
    if not (args and isinstance(args[0], Tensor) and isinstance(result, Tensor)):
        return False
    return func in _REARRANGING or (args[0].ndim > _IMAGE_RANK) != (result.ndim > _IMAGE_RANK)
