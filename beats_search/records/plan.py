"""A plan: everything that determines one trial, as plain frozen data with a fingerprint.

The classes here are also the grammar of a space file: `space.schema` reads a YAML mapping by the
fields of `TrialPlan`. A field annotated with `Shelf` is a part from that shelf; a field whose
metadata says `knob: False` must be a fixed value.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from beats_search.records.part import Part, Shelf
from beats_search.records.plain import to_plain

FIXED: Final[Mapping[str, bool]] = {"knob": False}
_HALF_TURN = 180


@dataclass(frozen=True, slots=True, kw_only=True)
class AccumulationPlan:
    """Gradient accumulation: one optimizer step per `window` micro-batches."""

    window: int = 1

    def __post_init__(self) -> None:
        """Refuse a window that holds no micro-batch."""
        if self.window < 1:
            raise ValueError(f"accumulation.window needs to be at least 1, got {self.window}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationPlan:
    """Random changes to training images: shift in pixels, mirror left-right, rotation in degrees."""

    shift: int = 0
    flip: bool = False
    rotation: float = 0.0

    def __post_init__(self) -> None:
        """Refuse negative amounts."""
        if self.shift < 0:
            raise ValueError(f"augmentation.shift needs to be at least 0 pixels, got {self.shift}")
        if not 0 <= self.rotation <= _HALF_TURN:
            rule = "augmentation.rotation needs to be between 0 and 180 degrees"
            raise ValueError(f"{rule}, got {self.rotation}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """How to train: `batch_size` is the micro-batch, and schedules advance per micro-batch."""

    epochs: int
    batch_size: int = 64
    optimizer: Annotated[Part, Shelf("optimizers")] = Part(name="adam")
    lr: float = 1e-3
    schedule: Annotated[Part, Shelf("schedules")] = Part(name="constant")
    accumulation: AccumulationPlan = AccumulationPlan()
    augmentation: AugmentationPlan = AugmentationPlan()
    device: str = field(default="auto", metadata=FIXED)
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        if self.epochs < 1:
            raise ValueError(f"training.epochs needs to be at least 1, got {self.epochs}")
        if self.batch_size < 1:
            raise ValueError(f"training.batch_size needs to be at least 1, got {self.batch_size}")
        if not self.lr > 0:
            raise ValueError(f"training.lr needs to be above 0, got {self.lr}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPlan:
    """All that determines one trial."""

    dataset: Annotated[Part, Shelf("datasets")] = field(metadata=FIXED)
    model: Annotated[Part, Shelf("models")]
    training: TrainingPlan
    compression: tuple[Annotated[Part, Shelf("compression")], ...] = ()
    runtime: Annotated[Part, Shelf("runtimes")] = Part(name="onnxruntime")
    seed: int = field(default=0, metadata=FIXED)

    def fingerprint(self) -> str:
        """Return 16 hex digits that are equal exactly when the plans are equal."""
        text = json.dumps(to_plain(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]
