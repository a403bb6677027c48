"""A plan: everything that determines one trial, as plain frozen data with a fingerprint.

The classes here are also the grammar of a space file: `space.schema` reads a YAML mapping by the
fields of `TrialPlan`. A field annotated with `Shelf` is a part from that shelf; a field whose
metadata says `knob: False` must be a fixed value.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Final, Literal

from beats_search.records.idle import effective
from beats_search.records.part import Part, Shelf
from beats_search.records.plain import to_plain

FIXED: Final[Mapping[str, bool]] = {"knob": False}
_HALF_TURN = 180


def _refuse_no_share(name: str, share: float) -> None:  # stands before the records: their defaults call it
    if not 0 <= share <= 1:
        raise ValueError(f"{name} needs to be between 0 and 1, got {share}")


def _refuse_other(name: str, word: str, allowed: tuple[str, ...]) -> None:
    if word not in allowed:
        raise ValueError(f"{name} needs to be {' or '.join(allowed)}, got {word}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccumulationPlan:
    """The Beats method: gradients are accumulated region by region until a trigger or the window fires.

    `window` caps the micro-batches of one accumulation; `trigger` fires a region as soon as the
    agreement of its micro-gradients, between 0 and their number, reaches it. `local_error` is the
    weight of the regions' own losses beside the network's, annealed to 0 over the last `anneal` of
    training (a share; 0 keeps it). `top_k` is the share of entries that a fire hands on.
    """

    window: int = 1
    trigger: float | Literal["never"] = "never"
    local_error: float = 0.0
    scope: Literal["region", "global"] = "region"
    mode: Literal["mean", "sum"] = "mean"
    anneal: float = 0.25
    local_scale: Literal["none", "norm"] = "none"
    top_k: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a window that holds no micro-batch, and shares that are none."""
        if self.window < 1:
            raise ValueError(f"accumulation.window needs to be at least 1, got {self.window}")
        if self.trigger != "never" and not (_is_number(self.trigger) and 0 <= self.trigger < math.inf):
            raise ValueError(f"accumulation.trigger needs to be never or at least 0, got {self.trigger}")
        _refuse_other("accumulation.scope", self.scope, ("region", "global"))
        _refuse_other("accumulation.mode", self.mode, ("mean", "sum"))
        _refuse_other("accumulation.local_scale", self.local_scale, ("none", "norm"))
        _refuse_no_share("accumulation.local_error", self.local_error)
        _refuse_no_share("accumulation.anneal", self.anneal)
        if not 0 < self.top_k <= 1:
            raise ValueError(f"accumulation.top_k needs to be above 0 and at most 1, got {self.top_k}")
        if self.top_k < 1 and self.mode != "sum":
            raise ValueError(f"accumulation.top_k below 1 needs mode: sum, got top_k={self.top_k}, mode={self.mode}")

    def effective(self) -> "AccumulationPlan":
        """Return the plan of the same training in which all that has no effect is at its default.

        With a window of 1, or a trigger of at most 1, every micro-batch is an update of all regions.
        """
        found = self
        if found.window == 1 or (found.trigger != "never" and found.trigger <= 1):
            mode = found.mode if found.top_k < 1 else "mean"
            found = replace(found, window=1, trigger="never", mode=mode)
        if found.trigger == "never":
            found = replace(found, scope="region")
        if not found.local_error:
            found = replace(found, anneal=AccumulationPlan().anneal, local_scale="none")
        return found

    @property
    def plain(self) -> bool:
        """Whether this is ordinary accumulation over a window, without trigger and local errors."""
        return self.trigger == "never" and not self.local_error


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
    """How to train: `batch_size` is the micro-batch, and schedules advance per micro-batch.

    `batch_norm` adds batch norms to the model or removes its own; `clip` is the largest norm of the
    gradient that an optimizer step takes (0: any); `ema` is the decay of the moving average of the
    weights that is evaluated and exported in place of the last ones (0: the last ones).
    """

    epochs: int
    batch_size: int = 64
    optimizer: Annotated[Part, Shelf("optimizers")] = Part(name="adam")
    lr: float = 1e-3
    schedule: Annotated[Part, Shelf("schedules")] = Part(name="constant")
    accumulation: AccumulationPlan = AccumulationPlan()
    augmentation: AugmentationPlan = AugmentationPlan()
    batch_norm: Literal["as_built", "added", "removed"] = "as_built"
    label_smoothing: float = 0.0
    clip: float = 0.0
    ema: float = 0.0
    device: str = field(default="auto", metadata=FIXED)
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        if self.epochs < 1:
            raise ValueError(f"training.epochs needs to be at least 1, got {self.epochs}")
        if self.batch_size < 1:
            raise ValueError(f"training.batch_size needs to be at least 1, got {self.batch_size}")
        if self.batch_norm == "added" and self.batch_size == 1:
            rule = "training.batch_norm: added needs a batch_size of at least 2: one input has no variance"
            raise ValueError(f"{rule}, got batch_size=1")
        if not self.lr > 0:
            raise ValueError(f"training.lr needs to be above 0, got {self.lr}")
        if not self.clip >= 0:
            raise ValueError(f"training.clip needs to be at least 0, got {self.clip}")
        for name, share in (("label_smoothing", self.label_smoothing), ("ema", self.ema)):
            if not 0 <= share < 1:
                raise ValueError(f"training.{name} needs to be at least 0 and below 1, got {share}")


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
        """Return 16 hex digits that are equal exactly when the plans are, but for settings without an effect."""
        training = replace(self.training, accumulation=self.training.accumulation.effective())
        compression = tuple(effective(technique) for technique in self.compression)
        acting = replace(self, training=training, compression=compression)
        text = json.dumps(to_plain(acting), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]
