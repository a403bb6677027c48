"""Toy shelves and a small space file, for the tests of the space."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from beats_search import plugins
from beats_search.records.errors import SpaceError
from beats_search.space.knobs import SearchSpace
from beats_search.space.schema import read_space

SMALL: Final = """\
name: toy
dataset: digits
model: mlp
training:
  epochs: 2
"""

WHOLE: Final = """\
name: toy
seed: 3
dataset: {name: csv, file: data/train.csv}
model: {name: mlp, width: {choice: [16, 32, 64]}, depth: {low: 1, high: 3}}
training:
  epochs: 12
  batch_size: 64
  optimizer: {name: sgd, momentum: {low: 0, high: 0.9, step: 0.3}}
  lr: {low: 1e-3, high: 0.1, log: true}
  schedule: {choice: [constant, {name: step, gamma: {low: 0.1, high: 0.5}, every: 4}, cosine]}
  accumulation:
    window: {choice: [1, 2, 4]}
compression:
  - {name: channel_pruning, ratio: {low: 0.0, high: 0.9}, layers: {choice: [["*"], [fc1, fc2]]}}
  - {choice: [{name: quantization, bits: {choice: [32, 8]}}, {name: quantization, bits: 8, mode: qat}]}
runtime: {name: onnxruntime, threads: {choice: [1, 4]}}
objectives: {accuracy: maximize, latency_ms: minimize, size_kb: minimize}
constraints: {size_kb: "<= 500", accuracy: ">= 0.9"}
reference: {model.width: 32}
search: {trials: 40, timeout: 1h30m, sampler: {name: frontier, startup: 5}}
"""

_HEAD: Final = """\
from dataclasses import dataclass, field
from typing import ClassVar, Literal

part = dataclass(frozen=True, slots=True, kw_only=True)

"""

_SOURCES: Final = {
    "datasets": """
__all__ = ["Csv", "Digits"]

@part
class Digits:
    '''Small pictures of digits.'''
    size: int = 8

@part
class Csv:
    '''A table in a file.'''
    file: str = field(metadata={"path": True})
    cache: str | None = field(default=None, metadata={"path": True})
""",
    "models": """
__all__ = ["Cnn", "Mlp"]

@part
class Mlp:
    '''Fully connected layers.'''
    width: int = 64
    depth: int = 1
    dropout: float = 0
    activation: Literal["relu", "gelu"] = "relu"
    scale: float | None = None

    def __post_init__(self):
        if self.width < 1:
            raise ValueError(f"width needs to be at least 1, got {self.width}")

@part
class Cnn:
    '''Convolutions.'''
    width: int
""",
    "optimizers": """
__all__ = ["Adam", "Sgd"]

@part
class Adam:
    '''Adam.'''

@part
class Sgd:
    '''Stochastic gradient descent.'''
    momentum: float = 0.0
    nesterov: bool = False
""",
    "schedules": """
__all__ = ["Constant", "Cosine", "Step"]

@part
class Constant:
    '''The same all along.'''

@part
class Cosine:
    '''Half a cosine.'''

@part
class Step:
    '''Times `gamma` every so many epochs.'''
    gamma: float = 0.1
    every: int = 4
""",
    "compression": """
__all__ = ["ChannelPruning", "Quantization"]

@part
class ChannelPruning:
    '''Fewer channels.'''
    ratio: float
    layers: tuple[str, ...] = ("*",)

    def __post_init__(self):
        if not 0 <= self.ratio < 1:
            raise ValueError(f"ratio needs to be at least 0 and below 1, got {self.ratio}")

@part
class Quantization:
    '''Fewer bits.'''
    mode: Literal["ptq", "qat"] = "ptq"
    bits: Literal[32, 8] = 8
    recovery_epochs: int = 0
    closes: ClassVar[bool] = True

    def __post_init__(self):
        if self.mode == "ptq" and self.recovery_epochs:
            raise ValueError(f"ptq refuses recovery_epochs, got {self.recovery_epochs}")
""",
    "runtimes": """
__all__ = ["Onnxruntime", "TorchEager"]

@part
class Onnxruntime:
    '''ONNX Runtime.'''
    threads: int = 1
    batch_size: int = field(default=1, metadata={"knob": False})

@part
class TorchEager:
    '''PyTorch itself.'''
""",
    "samplers": """
__all__ = ["Frontier", "Grid"]

@part
class Grid:
    '''Every combination.'''
    points: int = 3

@part
class Frontier:
    '''A proposal with the most to expect.'''
    startup: int = 10
""",
}


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the toy shelves in the place of the real ones; imports of a user's modules are undone as well."""
    for shelf, source in _SOURCES.items():
        (folder / f"toy_{shelf}.py").write_text(_HEAD + source)
    monkeypatch.setattr(plugins, "SHELVES", {shelf: f"toy_{shelf}" for shelf in _SOURCES})
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    for shelf in _SOURCES:
        monkeypatch.delitem(sys.modules, f"toy_{shelf}", raising=False)


def read(text: str, *changes: str, file: Path = Path("toy.yaml")) -> SearchSpace:
    """Read a space that is expected to be right."""
    return read_space(text, file=file, changes=changes)


def mistakes(text: str, *changes: str, file: Path = Path("toy.yaml")) -> Sequence[str]:
    """Read a space that is expected to be wrong and return its mistakes as they are shown."""
    with pytest.raises(SpaceError) as raised:
        read_space(text, file=file, changes=changes)
    return str(raised.value).splitlines()
