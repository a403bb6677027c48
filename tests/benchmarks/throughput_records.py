"""Records: who trains, on what, and what was measured of it, as plain data.

Nothing here imports torch: Linux counts the size of a process into the peak memory of those that it
starts, so the script that starts them has to stay small.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from beats_search.records.plan import AccumulationPlan

TRAINING_IMAGES: Final = 50_000
"""MNIST's published training images but the last 10,000, which are the validation split."""
VALIDATION_IMAGES: Final = 10_000
BATCH: Final = 64
LR: Final = 1e-3
BASELINE: Final = "baseline"
"""Imports torch and reads the data: what nobody who trains with torch can do without."""

ModelName = Literal["mlp", "cnn"]
MODELS: Final[tuple[ModelName, ...]] = ("mlp", "cnn")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLoop:
    """The loop of the source texts: torchvision's MNIST, a DataLoader, fp32."""

    workers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LightningLoop:
    """Lightning's Trainer with nothing switched on; `tensors` gives it preprocessed tensors to index by the batch."""

    workers: int = 0
    tensors: bool = False
    precision: Literal["32-true", "bf16-mixed"] = "32-true"


@dataclass(frozen=True, slots=True, kw_only=True)
class OurLoop:
    """The package's own `fit`."""

    accumulation: AccumulationPlan = AccumulationPlan()
    precision: Literal["auto", "fp32"] = "auto"


Loop: TypeAlias = SourceLoop | LightningLoop | OurLoop

CONTESTANTS: Final[Mapping[str, Loop]] = {
    "source": SourceLoop(),
    "source_workers": SourceLoop(workers=2),
    "lightning": LightningLoop(),
    "lightning_workers": LightningLoop(workers=2),
    "lightning_tensors": LightningLoop(tensors=True),
    "lightning_tensors_bf16": LightningLoop(tensors=True, precision="bf16-mixed"),
    "ours": OurLoop(),
    "ours_fp32": OurLoop(precision="fp32"),
    "ours_beats": OurLoop(accumulation=AccumulationPlan(window=8, trigger=1.6, local_error=0.2)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One measurement to take: `contestant` (or the baseline) trains `model` on the first `images` in `folder`."""

    contestant: str
    model: ModelName
    seed: int
    epochs: int
    images: int
    threads: int
    folder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one contestant reached in one process.

    Seconds begin with the uint8 images in memory: reading the files and importing are not in them.
    `initial` is a fingerprint of the untrained weights. `worker_peak_mb` is the largest of the
    processes that loaded data, on top of `peak_mb`; 0 without any.
    """

    task: Task
    training_seconds: float
    validation_seconds: float
    accuracy: float
    initial: str
    peak_mb: float
    worker_peak_mb: float

    @property
    def training_rate(self) -> float:
        """Images per second of training alone."""
        return self.task.epochs * self.task.images / self.training_seconds

    @property
    def whole_rate(self) -> float:
        """Images trained per second of whole epochs, validation and all."""
        return self.task.epochs * self.task.images / (self.training_seconds + self.validation_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The peak memory of a process that trains nothing, and the machine that it found."""

    peak_mb: float
    machine: Mapping[str, str]
