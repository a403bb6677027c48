"""Retiming: a run whose search has ended in, the latencies of all that may be on its front out, side by side.

A search times each trial in its own minute. At its end, whatever noise may have put on the front or
kept off it is timed once more, in the same rounds, beside the exported file of the reference. The
reference's own median over these rounds becomes the scale of all latencies of the run, so that one bad
minute at its beginning does not stay in its milliseconds.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from beats_search.measuring.blocks import OpenSession, Protocol
from beats_search.measuring.latency import measure_with_reference
from beats_search.pareto import undecided_of_run
from beats_search.records.outcome import Latency
from beats_search.records.run import REFERENCE, RunRecord, TrialRecord
from beats_search.trial.recipe import runtime_of, stage_seed

_MOST: Final = 20

ModelOf = Callable[[int], Path]
"""Returns where the model of a trial is, by its number."""


def to_retime(run: RunRecord, model_of: ModelOf) -> tuple[TrialRecord, ...]:
    """Return the trials that are to be timed once more, beside the reference: the front and its near misses.

    None where all of them have been already, where latency does not count, or where the reference's model is gone.
    """
    if "latency_ms" not in run.counting or not model_of(REFERENCE).exists():
        return ()
    undecided = undecided_of_run(run.as_searched(), _MOST)
    chosen = tuple(trial for trial in undecided if trial.number != REFERENCE and model_of(trial.number).exists())
    return chosen if any(trial.number not in run.first_latency for trial in chosen) else ()


def retime(
    run: RunRecord, trials: Sequence[TrialRecord], model_of: ModelOf, protocol: Protocol | None = None
) -> Mapping[int, Latency]:
    """Return the latencies of the reference and of trials of a run by number, timed in the same rounds.

    They are on the scale of what the reference took in these rounds.
    """
    ((reference, _),) = (pair for pair in run.finished() if pair[0].number == REFERENCE)
    latencies = measure_with_reference(
        [_sessions(trial, model_of) for trial in trials],
        _sessions(reference, model_of),
        seed=stage_seed(reference.plan, "retiming"),
        protocol=protocol,
    )
    return {trial.number: latency for trial, latency in zip((reference, *trials), latencies, strict=True)}


def _sessions(trial: TrialRecord, model_of: ModelOf) -> OpenSession:
    return runtime_of(trial.plan).load(model_of(trial.number)).open
