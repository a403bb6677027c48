"""Precision: the finished trials of a run in, what lower precision gained over fp32 out."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import median

from beats_search.records.outcome import Finished, Interval
from beats_search.records.part import Part
from beats_search.records.plan import TrialPlan
from beats_search.records.run import RunRecord, TrialRecord
from beats_search.report.words import part_in_words, runtime_in_words, technique_in_words

_FULL = "fp32"
_FULL_BITS = 32
_PRECISION_SETTINGS = frozenset({"precision", "linear_bits"})
"""Settings of runtimes."""

_MIXED = "mixed"
_EXECUTED = {8: "int8", 4: "int4"}
_Pair = tuple[TrialRecord, Finished]
_Structure = tuple[Part, int, Part]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rivalry:
    """One structure in two precisions: their median latencies, and whether the intervals are apart."""

    structure: str
    executed_as: str
    low_trials: tuple[int, ...]
    low_ms: float
    full_trials: tuple[int, ...]
    full_ms: float
    clear: bool

    @property
    def gain(self) -> float:
        """How many times faster than fp32 the lower precision is; 1 or less where it does not pay."""
        return self.full_ms / self.low_ms


def rivalries(run: RunRecord) -> tuple[Rivalry, ...]:
    """Return one rivalry per structure that finished both in fp32 and in a lower precision, worst gain first.

    A structure is a model with its settings, the multiply-accumulates that compression left of it, and
    its runtime but for its precision: a ratio that removed no channel makes no structure of its own.
    """
    groups: defaultdict[_Structure, defaultdict[str, list[_Pair]]] = defaultdict(lambda: defaultdict(list))
    for trial, outcome in run.finished():
        groups[_structure(trial.plan, outcome)][outcome.executed_as].append((trial, outcome))
    found = [
        _rivalry(precision, low, by_precision[_FULL])
        for by_precision in groups.values()
        for precision, low in by_precision.items()
        if precision != _FULL and _FULL in by_precision
    ]
    return tuple(sorted(found, key=lambda rivalry: rivalry.gain))


def surprises(run: RunRecord) -> tuple[str, ...]:
    """Return a sentence for each precision that was asked for and did not run: which trials, what ran."""
    groups: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for trial, outcome in run.finished():
        for asked in missed_bits(trial.plan, outcome):
            groups[asked, outcome.executed_as].append(trial.number)
    return tuple(
        f"{asked} were asked for, and the kernels ran in {executed}: {numbered(trials)}."
        for (asked, executed), trials in sorted(groups.items())
    )


def missed_bits(plan: TrialPlan, outcome: Finished) -> tuple[str, ...]:
    """Return what a plan asked for, `4 bits`, where the kernels ran in something else.

    Bits of its own for each layer ask for integer kernels; bits of linear layers may be those of some only.
    """
    asked = [dict(part.settings).get("bits") for part in plan.compression if part.name == "quantization"]
    bits = min((bits for bits in asked if isinstance(bits, int)), default=_FULL_BITS)
    linear = dict(plan.runtime.settings).get("linear_bits", _FULL_BITS)
    missed = {
        f"{bits} bits": bits < _FULL_BITS and _EXECUTED.get(bits) != outcome.executed_as,
        "mixed bits": _MIXED in asked and outcome.executed_as != _EXECUTED[8],
        f"linear layers in {linear} bits": isinstance(linear, int)
        and linear < _FULL_BITS
        and outcome.executed_as not in {_EXECUTED[linear], _MIXED},
    }
    return tuple(words for words, is_missed in missed.items() if is_missed)


def numbered(trials: Iterable[int]) -> str:
    """Return trial numbers as words, `trial 3` or `trials 3, 7`."""
    numbers = [str(number) for number in trials]
    return f"trial{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"


def _structure(plan: TrialPlan, outcome: Finished) -> _Structure:
    runtime = tuple(item for item in plan.runtime.settings if item[0] not in _PRECISION_SETTINGS)
    return plan.model, outcome.footprint.macs, replace(plan.runtime, settings=runtime)


def _in_words(plan: TrialPlan) -> str:
    """Return the model and what shapes it: no quantization, no ratio of zero."""
    shaping = (technique_in_words(part) for part in plan.compression if part.name != "quantization")
    elsewhere = runtime_in_words(replace(plan.runtime, settings=()))
    return "; ".join([part_in_words(plan.model), *(words for words in (*shaping, elsewhere) if words)])


def _rivalry(precision: str, low: list[_Pair], full: list[_Pair]) -> Rivalry:
    one, other = _spread(low), _spread(full)
    return Rivalry(
        structure=min((_in_words(trial.plan) for trial, _ in (*full, *low)), key=len),
        executed_as=precision,
        low_trials=tuple(trial.number for trial, _ in low),
        low_ms=median(outcome.latency.median_ms for _, outcome in low),
        full_trials=tuple(trial.number for trial, _ in full),
        full_ms=median(outcome.latency.median_ms for _, outcome in full),
        clear=one.high < other.low or other.high < one.low,
    )


def _spread(pairs: list[_Pair]) -> Interval:
    ends = [outcome.latency.interval_ms for _, outcome in pairs]
    return Interval(low=min(end.low for end in ends), high=max(end.high for end in ends))
