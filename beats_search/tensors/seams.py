"""Seams: the protocols between a trial and its parts. One method or two each, so that a fake is easy."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

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
class Bench:
    """What a technique may use: the data, training for some epochs on a copy, and a seed.

    `fine_tune(model, epochs)` returns a trained copy of the model; its argument stays as it is.
    """

    data: DataBundle
    fine_tune: Callable[[nn.Module, int], nn.Module]
    seed: int


class Technique(Protocol):
    """A part of `compression`: a model and a bench in, a smaller or faster model out."""

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
        """Load the file into a fresh session and return the call to time: one batch, as configured."""


class Runtime(Protocol):
    """A part of `runtimes`."""

    def deploy(self, model: nn.Module, example: Tensor, path: Path) -> Engine:
        """Export the model to `path` and load it. `example` is one input with its batch dimension."""

    def load(self, path: Path) -> Engine:
        """Load a file that `deploy` wrote."""
