"""Accumulation: gradients of micro-batches in, one optimizer step per window of them out."""

from typing import final

import torch
from torch import Tensor
from torch.optim import Optimizer


@final
class Accumulator:
    """Steps any optimizer once per `window` micro-batches, with the mean of their gradients.

    The sum is held in the `.grad` of the parameters, where backward passes add up by themselves.
    A window may cross the end of an epoch; `flush` steps with what is left at the end of training.
    """

    def __init__(self, optimizer: Optimizer, window: int) -> None:
        """Begin an empty window."""
        optimizer.zero_grad()
        self._optimizer = optimizer
        self._window = window
        self._count = 0

    def take(self, lr: float) -> bool:
        """Count the micro-batch that was just passed backward; step at `lr` if it fills the window.

        Returns whether there was a step.
        """
        self._count += 1
        return self._step(lr) if self._count == self._window else False

    def flush(self, lr: float) -> bool:
        """Step at `lr` with the micro-batches of an unfinished window; return whether there were any."""
        return self._step(lr) if self._count else False

    def _step(self, lr: float) -> bool:
        if self._count > 1:  # one gradient is its own mean: it goes through untouched, bit for bit
            torch._foreach_div_(_gradients(self._optimizer), self._count)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._count = 0
        return True


def _gradients(optimizer: Optimizer) -> list[Tensor]:
    parameters: list[Tensor] = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return [parameter.grad for parameter in parameters if parameter.grad is not None]
