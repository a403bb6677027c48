"""How a trial ends: `Finished`, `Stopped` or `Failed`. A failure is a value that names its stage.

Accuracies and shares are 0…1, times are in the unit that the name says, intervals hold 95 %.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

from beats_search.records.plain import Plain, from_tagged

TIMING: Final = "measuring"
"""The stage in which an exported file is timed."""

_OFTEN: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionScore:
    """How often a region of the network was updated in one epoch, and what its updates were made of.

    `agreement` is the mean of the trigger's statistic at the updates (between 0 and the number of
    micro-batches), `waited` the mean number of micro-batches in an update; both NaN without updates.
    """

    name: str
    fires: int
    agreement: float
    waited: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochScore:
    """What one epoch of training reached on the validation split, and how it updated the weights.

    `micro_batches` counts all of the epoch; `updates` counts optimizer steps; `skipped` counts
    micro-batches whose gradient was not finite.
    `regions` is in the order of the network; empty where nothing but a window fires.
    """

    epoch: int
    train_loss: float
    accuracy: float
    seconds: float
    micro_batches: int = 0
    updates: int = 0
    skipped: int = 0
    regions: tuple[RegionScore, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float

    def __post_init__(self) -> None:
        """Refuse an interval that is upside down."""
        if self.low > self.high:
            raise ValueError(f"an interval needs low <= high, got low={self.low}, high={self.high}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Time of one call of the whole batch, paired with a reference in the same session of timing.

    `ratio` is the candidate's time over the reference's, when that takes its usual time; `median_ms` is
    that ratio times the usual time, so that all trials of a run are on one scale. `raw_median_ms` is the
    candidate's own median. `settled` is False when the time budget was spent before the rounds told the
    ratio narrowly enough. `blocks` counts those of the candidate that were used, and the reference has as
    many; in `disturbed_blocks` of both the process had to wait for the processor, the core was slower than
    it can be, or others kept the machine busy. `drifted` says that the reference's time had a trend.
    """

    median_ms: float
    interval_ms: Interval
    ratio: float
    ratio_interval: Interval
    raw_median_ms: float
    blocks: int
    calls: int
    settled: bool
    disturbed_blocks: int = 0
    drifted: bool = False

    @property
    def disturbed(self) -> bool:
        """Whether more than a tenth of all blocks were disturbed."""
        return self.disturbed_blocks > _OFTEN * 2 * self.blocks

    def times(self, factor: float) -> "Latency":
        """Return it with the reference so many times as slow: ratio and raw median stay as they were measured."""
        ends = Interval(low=factor * self.interval_ms.low, high=factor * self.interval_ms.high)
        return replace(self, median_ms=factor * self.median_ms, interval_ms=ends)


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """What the exported model weighs: its file, its parameters, its work per input row."""

    size_kb: float
    parameters: int
    macs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A trial that went all the way. Everything here was measured on the exported file, `model_file` in its folder.

    `stage_seconds` are those that were spent now; `reused_seconds` are those that work of earlier
    trials had taken, by stage, where this one went on from it. Where the stage of timing is among them,
    `latency` was measured on another file, untrained or of an earlier trial, which differs in its weights alone.
    `energy_mj` is the processor's energy for one call, with the interval that its scatter gives; None
    where it does not count and was not measured.
    """

    accuracy: float
    accuracy_interval: Interval
    latency: Latency
    footprint: Footprint
    executed_as: str
    sha256: str
    curve: tuple[EpochScore, ...]
    stage_seconds: Mapping[str, float]
    model_file: str = "model.onnx"
    energy_mj: float | None = None
    energy_interval_mj: Interval | None = None
    reused_seconds: Mapping[str, float] = field(default_factory=dict)

    def value(self, objective: str) -> float:
        """Return the measured value of an objective by its name, NaN without one; KeyError for an unknown name."""
        return {
            "accuracy": self.accuracy,
            "latency_ms": self.latency.median_ms,
            "size_kb": self.footprint.size_kb,
            "macs": float(self.footprint.macs),
            "energy_mj": math.nan if self.energy_mj is None else self.energy_mj,
        }[objective]

    def interval(self, objective: str) -> Interval:
        """Return the 95 % interval of an objective; a counted value is its own interval."""
        value = self.value(objective)
        measured = {
            "accuracy": self.accuracy_interval,
            "latency_ms": self.latency.interval_ms,
            "energy_mj": self.energy_interval_mj,
        }
        return measured.get(objective) or Interval(low=value, high=value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """A trial that was ended on purpose after an epoch, because going on could not pay.

    After epoch 0 it was not trained at all, `foreseen` to break a limit or to gain too little.
    `expected` is the accuracy that its file was expected to have. `reused_seconds` are those that the work
    of earlier trials in it had taken, by stage.
    """

    epoch: int
    reason: str
    curve: tuple[EpochScore, ...]
    foreseen: Literal["", "limit", "gain"] = ""
    expected: float | None = None
    reused_seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A trial that could not go on: in which stage, why in one line, and the traceback."""

    stage: str
    reason: str
    detail: str = ""


TrialOutcome: TypeAlias = Finished | Stopped | Failed
OUTCOMES: Final = (Finished, Stopped, Failed)


def outcome_from_plain(data: Plain) -> TrialOutcome:
    """Read back an outcome that `plain.tagged` wrote; TypeError when it is none."""
    outcome: TrialOutcome = from_tagged(OUTCOMES, data)  # type: ignore[assignment]  # joins to object
    return outcome
