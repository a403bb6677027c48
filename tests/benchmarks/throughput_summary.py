"""Summary: measurements of several rounds in, one line per model and contestant out. Pure arithmetic."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from throughput_records import CONTESTANTS, MODELS, Measurement, ModelName

REFERENCE: Final = "source"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The median of `n` values, and the smallest and largest of them."""

    n: int
    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyCheck:
    """Validation accuracies over rounds, and their mean difference from the reference's in the same rounds.

    `noise` is the larger of the two standard deviations over rounds. `within_noise` tells whether the
    mean difference is no larger; both are None for a single round, which has no spread.
    """

    mean: float
    mean_difference: float
    noise: float | None
    within_noise: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a contestant reached with a model over all rounds; ratios are to the reference, round by round."""

    model: ModelName
    contestant: str
    training_images_per_second: Spread
    training_ratio: Spread
    whole_images_per_second: Spread
    whole_ratio: Spread
    accuracy: AccuracyCheck
    peak_mb: Spread
    peak_over_baseline_mb: float
    worker_peak_mb: float


def summarize(measured: Sequence[Measurement], baseline_mb: float) -> tuple[Summary, ...]:
    """Return a summary per model and contestant, in the order in which those are listed.

    Every contestant is compared with the reference's measurement of the same model and seed; raises
    ValueError when there is none, or when the two did not begin with equal weights.
    """
    present = {(one.task.model, one.task.contestant) for one in measured}
    listed = [(model, contestant) for model in MODELS for contestant in CONTESTANTS]
    return tuple(_summarize(measured, *pair, baseline_mb) for pair in listed if pair in present)


def spread(values: Sequence[float]) -> Spread:
    """Return median and extremes of at least one value."""
    return Spread(n=len(values), median=statistics.median(values), low=min(values), high=max(values))


def compare_accuracy(own: Sequence[float], reference: Sequence[float]) -> AccuracyCheck:
    """Compare accuracies of the same rounds with the reference's, as long as theirs differ from round to round."""
    difference = statistics.fmean(mine - theirs for mine, theirs in zip(own, reference, strict=True))
    noise = max(statistics.stdev(own), statistics.stdev(reference)) if len(own) > 1 else None
    within = None if noise is None else abs(difference) <= noise
    return AccuracyCheck(mean=statistics.fmean(own), mean_difference=difference, noise=noise, within_noise=within)


def _summarize(measured: Sequence[Measurement], model: ModelName, contestant: str, baseline_mb: float) -> Summary:
    own = [one for one in measured if (one.task.model, one.task.contestant) == (model, contestant)]
    reference = [_reference_of(one, measured) for one in own]
    pairs = list(zip(own, reference, strict=True))
    peak = spread([one.peak_mb for one in own])
    return Summary(
        model=model,
        contestant=contestant,
        training_images_per_second=spread([one.training_rate for one in own]),
        training_ratio=spread([one.training_rate / other.training_rate for one, other in pairs]),
        whole_images_per_second=spread([one.whole_rate for one in own]),
        whole_ratio=spread([one.whole_rate / other.whole_rate for one, other in pairs]),
        accuracy=compare_accuracy([one.accuracy for one in own], [other.accuracy for other in reference]),
        peak_mb=peak,
        peak_over_baseline_mb=peak.median - baseline_mb,
        worker_peak_mb=max(one.worker_peak_mb for one in own),
    )


def _reference_of(one: Measurement, measured: Sequence[Measurement]) -> Measurement:
    key = (REFERENCE, one.task.model, one.task.seed)
    found = next(
        (other for other in measured if (other.task.contestant, other.task.model, other.task.seed) == key), None
    )
    if found is None:
        raise ValueError(f"{one.task.contestant} needs a measurement of {REFERENCE} with the same model and seed")
    if found.initial != one.initial:
        raise ValueError(f"{one.task.contestant} and {REFERENCE} need equal weights to begin with, got others")
    return found
