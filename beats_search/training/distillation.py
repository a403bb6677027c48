"""Distillation: a teacher and a plain loss in, the loss of a student for a batch of images out (Hinton et al. 2015)."""

from collections.abc import Callable
from copy import deepcopy
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from beats_search.tensors.seams import Distillation
from beats_search.training.local_error import Loss
from beats_search.training.precision import Numerics

Objective: TypeAlias = Callable[[Tensor], Loss]
"""The images of a micro-batch, as the network gets them, to the loss of logits of just these images."""


def objective(plain: Loss, distillation: Distillation | None, numerics: Numerics, device: torch.device) -> Objective:
    """Return the plain loss for all images, or, with a teacher, (1 - w)·plain + w·T²·KL(teacher/T, student/T).

    T² keeps the gradient of the second term as large as without softening. The teacher is a copy in
    eval mode, computed on the device by the same numerics as the student.
    """
    if distillation is None:
        return lambda _: plain
    weight, temperature = distillation.weight, distillation.temperature
    teacher = numerics.prepared(deepcopy(distillation.teacher).eval().requires_grad_(requires_grad=False).to(device))

    def taught(images: Tensor) -> Loss:
        with torch.no_grad():
            wanted = _softened(numerics.logits(teacher, images), temperature)

        def loss(logits: Tensor, labels: Tensor) -> Tensor:
            given = _softened(logits, temperature)
            distance = functional.kl_div(given, wanted, reduction="batchmean", log_target=True)
            return (1 - weight) * plain(logits, labels) + weight * temperature**2 * distance

        return loss

    return taught


def _softened(logits: Tensor, temperature: float) -> Tensor:
    return functional.log_softmax(logits / temperature, dim=1)
