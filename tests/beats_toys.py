"""Toys of the tests of the Beats method: networks, micro-batches, gradients that the test chooses, and oracles."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import Parameter, functional
from torch.optim import SGD, AdamW, Optimizer

from beats_search.training.accumulation import Beats

Make = Callable[[Iterable[Parameter]], Optimizer]

OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda parameters: SGD(parameters, lr=0.05),
    "sgd with momentum and decay": lambda parameters: SGD(parameters, lr=0.05, momentum=0.9, weight_decay=5e-4),
    "adamw": lambda parameters: AdamW(parameters, lr=0.01, weight_decay=1e-2),
}
STEPS = 60


def network() -> nn.Sequential:
    """Return three layers between 6 inputs and 3 classes, with a norm and dropout; always the same weights."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 7), nn.ReLU(), nn.Dropout(0.2), nn.Linear(7, 3)
    )


def batch(step: int) -> tuple[Tensor, Tensor]:
    """Return the micro-batch of that number: 5 inputs and their labels."""
    random = torch.Generator().manual_seed(step)
    return torch.randn(5, 6, generator=random), torch.randint(0, 3, (5,), generator=random)


def train(beats: Beats, model: nn.Module, steps: Iterable[int]) -> None:
    """Take the micro-batches of those numbers."""
    for step in steps:
        inputs, labels = batch(step)
        beats.step(model(inputs), labels)


def gradient_of(model: nn.Module, step: int) -> list[Tensor]:
    """Return what plain torch gives for a micro-batch, one tensor per parameter."""
    inputs, labels = batch(step)
    return list(torch.autograd.grad(functional.cross_entropy(model(inputs), labels), list(model.parameters())))


def weights(model: nn.Module) -> list[Tensor]:
    """Return copies of all parameters."""
    return [parameter.detach().clone() for parameter in model.parameters()]


def equal(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> bool:
    """Tell whether all tensors are equal to the bit."""
    return all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


class Told(nn.Module):
    """A network of several vectors, whose gradient is whatever the test feeds it: the loss is Σ gradient·vector.

    The vectors are matrices of one row, each in a child of its own, so that each is a region.
    """

    def __init__(self, sizes: Sequence[int], dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.vectors = nn.ModuleList(nn.Linear(size, 1, bias=False, dtype=dtype) for size in sizes)
        for vector in self.vectors.parameters():
            nn.init.zeros_(vector)

    def forward(self, gradients: Sequence[Tensor]) -> Tensor:
        pairs = zip(self.vectors.parameters(), gradients, strict=True)
        return torch.stack([(vector.flatten() * gradient).sum() for vector, gradient in pairs])


def feed(beats: Beats, told: Told, gradients: Sequence[Tensor]) -> None:
    """Take one micro-batch whose gradients, one per region, are these."""
    beats.step(told(gradients), torch.zeros(1), loss=lambda terms, _: terms.sum())


class Handed:
    """What an SGD with a learning rate of 1 was handed, fire by fire, for every region of a `Told`."""

    def __init__(self, told: Told) -> None:
        self.optimizer = SGD(told.parameters(), lr=1.0)
        self.fires: list[list[Tensor | None]] = []
        self.optimizer.register_step_pre_hook(lambda *_: self._note(told))

    def _note(self, told: Told) -> None:
        gradients = [vector.grad for vector in told.vectors.parameters()]
        self.fires.append([None if gradient is None else gradient.flatten().clone() for gradient in gradients])

    def of(self, region: int) -> list[Tensor]:
        """Return the gradients that one region was updated with, in order."""
        return [fire[region] for fire in self.fires if fire[region] is not None]  # type: ignore[misc]  # just filtered
