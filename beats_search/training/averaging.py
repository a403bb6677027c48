"""Averaging: a model that is being trained in, the moving average of its weights out."""

from typing import final

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from beats_search.training.checkpoint import Tensors, restore, tensors_of

_Tensors = tuple[Tensor, ...] | list[Tensor]


@final
class WeightAverage:
    """The exponential moving average of all that a model holds: weights, and buffers such as norms' statistics.

    Update t, counted from 0, keeps min(`decay`, (1 + t) / (10 + t)) of the average, as
    ExponentialMovingAverage of TensorFlow with `num_updates` does, so that the average does not lag
    in short trainings; update 0 keeps nothing of the untrained weights. Buffers of whole numbers
    are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Begin with a copy of `model`, which is never changed; raises ValueError for a decay outside of 0…1."""
        if not 0 < decay < 1:
            raise ValueError(f"the decay of an average needs to be above 0 and below 1, got {decay}")
        self._trained = model
        self._decay = decay
        self._averaged = AveragedModel(model, multi_avg_fn=self._mix, use_buffers=True)

    @property
    def model(self) -> nn.Module:
        """The averaged model, of the same class and names as the trained one; the next update moves it."""
        return self._averaged.module

    def update(self) -> None:
        """Take in the weights that the trained model has now: to be called after every optimizer step."""
        self._averaged.update_parameters(self._trained)

    def state(self) -> dict[str, Tensor]:
        """Return all tensors of the average, live, and the number of updates taken."""
        return tensors_of(self._averaged)

    def load(self, state: Tensors) -> None:
        """Go on from a state; ValueError when it is of another model."""
        restore(self._averaged, state)

    def _mix(self, averages: _Tensors, weights: _Tensors, _: Tensor | int) -> None:
        """Move tensors of one type and device towards the trained ones, in place."""
        taken = int(self._averaged.n_averaged)  # what the library hands over lies on the device: reading it would wait
        keep = min(self._decay, (1 + taken) / (10 + taken))
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, weights, 1 - keep)
        else:
            torch._foreach_copy_(averages, weights)
