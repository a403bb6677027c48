"""Seams: the protocols between a trial and its parts. One method or two each, so that a fake is easy."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from torch import Tensor, nn

from beats_search.records.outcome import EpochScore
from beats_search.tensors.data import DataBundle

KeepGoing = Callable[[EpochScore], bool]
"""Asked after each epoch; False ends the training."""

Pace = Callable[[], AbstractContextManager[object]]
"""Makes the context in which one batch is computed."""


class DataSource(Protocol):
    """A part of `datasets`."""

    def load(self) -> DataBundle:
        """Return the data set as tensors in memory."""


class ModelFamily(Protocol):
    """A part of `models`."""

    def build(self, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        """Return an untrained network from inputs of (n, *input_shape) to logits of (n, classes)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distillation:
    """A share `weight` of the loss: the distance to the logits of a teacher, softened by a temperature."""

    teacher: nn.Module
    weight: float
    temperature: float = 4.0

    def __post_init__(self) -> None:
        """Refuse a share that is none, and a temperature to which nothing can be softened."""
        if not 0 < self.weight <= 1:
            raise ValueError(f"the weight of a distillation needs to be above 0 and at most 1, got {self.weight}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"the temperature of a distillation needs to be above 0, got {self.temperature}")


class FineTune(Protocol):
    """Training again, as a technique may ask for it."""

    def __call__(self, model: nn.Module, epochs: int, /, *, distillation: Distillation | None = None) -> nn.Module:
        """Return a copy of the model that was trained for some epochs; the arguments stay as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What a technique may use: the data, training for some epochs on a copy, and a seed."""

    data: DataBundle
    fine_tune: FineTune
    seed: int


class Technique(Protocol):
    """A part of `compression`: a model and a bench in, a smaller or faster model out.

    It may have `unforeseen`, the names of those of latency_ms, size_kb and macs that depend on trained
    weights; all others are taken from the untrained model, before training.
    """

    def apply(self, model: nn.Module, bench: Bench) -> nn.Module:
        """Return the compressed model in eval mode; the argument stays as it is."""


class Engine(Protocol):
    """An exported model, loaded by its runtime."""

    @property
    def path(self) -> Path:
        """The exported file."""

    @property
    def executed_as(self) -> str:
        """The precision that the kernels really have: fp32, bf16, fp16, int8, int4 or mixed."""

    def logits(self, inputs: Tensor) -> Tensor:
        """Return the logits of all inputs, float in [0, 1] of shape (n, …), computed in large batches."""

    def open(self) -> Callable[[], object]:
        """Load the file into a fresh session and return the call to time: one batch, as configured.

        Where a session cannot be closed again (torch_compile), a few of them are given in turn.
        """


class Runtime(Protocol):
    """A part of `runtimes`."""

    suffix: ClassVar[str]
    """How the name of its files ends: .onnx or .pt2."""

    @property
    def faithful(self) -> bool:
        """Whether its settings promise to compute a model as it is; if they round it, that costs accuracy at most."""

    def deploy(self, model: nn.Module, example: Tensor, path: Path) -> Engine:
        """Export the model to `path` and load it. `example` is one input with its batch dimension."""

    def load(self, path: Path) -> Engine:
        """Load a file that `deploy` wrote."""
