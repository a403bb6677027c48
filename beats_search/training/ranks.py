"""Ranks: numbers and gradients of one process in, sums and means over all that train together out."""

from collections.abc import Sequence
from typing import final

import torch
from torch import distributed
from torch.nn import Parameter


@final
class Ranks:
    """The processes of a group that train one model together; this process alone without a group."""

    def __init__(self, group: distributed.ProcessGroup | None) -> None:
        """Keep the group, whose ranks call these methods together."""
        self._group = group

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self._group is None

    def sums(self, scalars: list[float], device: torch.device) -> list[float]:
        """Return the sum of each number over all ranks; `device` is one that the group talks through."""
        if self._group is None:
            return scalars
        summed = torch.tensor(scalars, dtype=torch.float64, device=device)
        distributed.all_reduce(summed, group=self._group)
        return [float(each) for each in summed]

    def average_gradients(self, parameters: Sequence[Parameter]) -> None:
        """Replace each gradient by its mean over all ranks; one that a rank lacks counts as zero there."""
        if self._group is None:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad, group=self._group)
            parameter.grad /= self._group.size()
