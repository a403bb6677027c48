"""Importance: coupled layers in, one score for each channel out; the lowest are the first to go (by torch-pruning)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_pruning import importance

from beats_search.compression._coupling import CoupledLayers
from beats_search.tensors.data import Split, to_float

Criterion: TypeAlias = Literal["magnitude", "taylor", "batch_norm_scale", "fpgm", "random"]

_BATCHES: Final = 8
_BATCH_SIZE: Final = 32

_RULES: Final[Mapping[Criterion, Callable[[], Any]]] = {
    "magnitude": lambda: importance.GroupMagnitudeImportance(p=2, normalizer=None),
    "taylor": lambda: importance.GroupTaylorImportance(normalizer=None),
    "batch_norm_scale": lambda: importance.BNScaleImportance(normalizer=None),
    "fpgm": lambda: importance.FPGMImportance(p=2, normalizer=None),
    "random": importance.RandomImportance,
}


def channel_scores(
    criterion: Criterion, model: nn.Module, coupled: Sequence[CoupledLayers], train: Split, seed: int
) -> dict[str, Tensor]:
    """Return the scores of each set of layers by the name of its first one, shape (width / parts,), none below 0.

    Sets that a criterion says nothing about are left out. `taylor` leaves gradients on the `model`.
    """
    rule = _RULES[criterion]()
    if criterion != "taylor":
        return _scores(rule, coupled)
    found = [_scores(rule, coupled) for _ in _with_gradients(model, train, seed)]
    return {name: torch.stack([scores[name] for scores in found]).mean(0) for name in found[0]}


def _scores(rule: Callable[[Any], Tensor | None], coupled: Sequence[CoupledLayers]) -> dict[str, Tensor]:
    scores = {each.name: (rule(each.group), each.parts) for each in coupled}
    return {name: found.reshape(parts, -1).mean(0) for name, (found, parts) in scores.items() if found is not None}


def _with_gradients(model: nn.Module, train: Split, seed: int) -> Iterator[None]:
    """Stop after each of a few batches drawn at random, while the gradient of its loss stands on the model."""
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    for batch in torch.split(order[: _BATCHES * _BATCH_SIZE], _BATCH_SIZE):
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)  # the rule reads those too that no loss depends on
        loss = functional.cross_entropy(model(to_float(train.inputs[batch])), train.labels[batch])
        torch.autograd.backward(loss)
        yield
