"""Windows: the micro-gradients of one region in, one accumulated gradient out when it is due.

`A` of the method is `total`, `n` is `count`, `S` is `squares`, and `M`, what a compressor left, is
`memory`.
"""

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import reduce
from typing import Any, Final, Literal, TypeAlias, final

import torch
from torch import Tensor

Gradients: TypeAlias = list[Tensor | None]
"""One per parameter; None where the loss does not depend on it."""

Mode: TypeAlias = Literal["mean", "sum"]

_ONE: Final = 1.0


@final
class Window:
    """What one region has accumulated since it was updated last."""

    def __init__(self) -> None:
        """Begin empty, without a memory."""
        self.total: Gradients = []
        self.count = 0
        self.squares = 0.0
        self.memory: Gradients = []

    def add(self, gradients: Gradients, square: float) -> None:
        """Add a micro-gradient, whose squared norm is given; its tensors belong to the window from now on."""
        if self.count:
            self.total = added(self.total, gradients)
        else:  # the first goes in untouched: adding it to zeros would not be free, nor exact for -0
            self.total = gradients
        self.count += 1
        self.squares += square

    def state(self) -> dict[str, Any]:
        """Return a copy of all that the window holds."""
        return deepcopy(vars(self))

    def load(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Become a copy, on a device, of a window whose state this is."""
        vars(self).update(deepcopy(dict(state)))
        self.total = [tensor if tensor is None else tensor.to(device) for tensor in self.total]
        self.memory = [tensor if tensor is None else tensor.to(device) for tensor in self.memory]

    def take(self, mode: Mode, top_k: float) -> Gradients:
        """Return what is handed to the optimizer, and begin anew; the compressor's memory stays."""
        total, count = self.total, self.count
        self.total, self.count, self.squares = [], 0, 0.0
        if mode == "mean" and count > 1 and (tensors := present(total)):
            torch._foreach_div_(tensors, count)  # one gradient is its own mean: it goes through untouched, bit for bit
        return total if top_k == _ONE else self._compressed(total, top_k)

    def _compressed(self, total: Gradients, top_k: float) -> Gradients:
        """Return the largest share `top_k` of what is due, zeros elsewhere; keep the rest (Stich et al. 2018)."""
        due = added(self.memory, total) if self.memory else total
        if not present(due):
            return due
        sizes = torch.cat([tensor.abs().flatten() for tensor in present(due)])
        count = math.ceil(top_k * len(sizes))
        largest = torch.zeros_like(sizes, dtype=torch.bool)
        largest[sizes.topk(count).indices] = True
        masks = iter(torch.split(largest, [tensor.numel() for tensor in present(due)]))
        handed = [None if tensor is None else tensor * next(masks).view(tensor.shape) for tensor in due]
        self.memory = [
            None if tensor is None or sent is None else tensor - sent for tensor, sent in zip(due, handed, strict=True)
        ]
        return handed


def added(mine: Gradients, theirs: Gradients) -> Gradients:
    """Add to my tensors in place where both are there; take theirs where mine is missing."""
    both = [(one, other) for one, other in zip(mine, theirs, strict=True) if one is not None and other is not None]
    if both:
        torch._foreach_add_([one for one, _ in both], [other for _, other in both])
    return [other if one is None else one for one, other in zip(mine, theirs, strict=True)]


def present(gradients: Gradients) -> list[Tensor]:
    """Return the tensors that are there."""
    return [tensor for tensor in gradients if tensor is not None]


def square_norms(groups: Sequence[Gradients]) -> list[float]:
    """Return the squared norm of each group with one wait for the device; NaN or inf where it is not finite."""
    tensors = [tensor for group in groups for tensor in group if tensor is not None]
    if not tensors:
        return [0.0] * len(groups)
    norms = iter(torch.stack(_norms(tensors)).tolist())
    return [sum(next(norms) ** 2 for tensor in group if tensor is not None) for group in groups]


def _norms(tensors: list[Tensor]) -> list[Tensor]:
    """Return the norms in one type, at least float32: half precision would overflow beyond 65,504."""
    types = {tensor.dtype for tensor in tensors}
    wide = reduce(torch.promote_types, types, torch.float32)
    if types == {wide}:  # the common case is thrice as fast without a conversion
        return list(torch._foreach_norm(tensors))  # noqa: SLF001 - public in all but name
    return list(torch._foreach_norm(tensors, 2, wide))  # noqa: SLF001 - the same
