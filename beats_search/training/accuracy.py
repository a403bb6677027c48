"""Accuracy: a model and labelled data in, the share that the model gets right out."""

from contextlib import nullcontext
from typing import Final

import torch
from torch import Tensor, nn

from beats_search.records.errors import DivergedError
from beats_search.tensors.data import Split
from beats_search.tensors.seams import Pace
from beats_search.training.precision import PLAIN, Numerics

_BATCH: Final = 1000


def accuracy(model: nn.Module, split: Split, numerics: Numerics = PLAIN, pace: Pace = nullcontext) -> float:
    """Return the share, 0…1, of a split's inputs whose largest logit is that of their label.

    The model is left in eval mode; model and split are on one device. Raises DivergedError when a
    logit is not a finite number.
    """
    model.eval()
    batches = zip(torch.split(split.inputs, _BATCH), torch.split(split.labels, _BATCH), strict=True)
    correct: list[Tensor] = []
    with torch.inference_mode():
        for inputs, labels in batches:
            with pace():
                logits = numerics.logits(model, inputs)
                finite = logits.isfinite().all()
                correct.append(torch.where(finite, (logits.argmax(1) == labels).sum(), -len(split)))
    total = int(torch.stack(correct).sum())
    if total < 0:
        raise DivergedError("the model's logits are not finite numbers: its weights have diverged")
    return total / len(split)
