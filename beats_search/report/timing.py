"""Timing: latencies in, what a person needs to know of how they were timed out."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from beats_search.pareto import front_of_run, ties_of_run
from beats_search.records.outcome import Latency
from beats_search.records.run import REFERENCE, RunRecord
from beats_search.report.measures import plural

TIES: Final = "their latencies cannot be told apart"
"""What a tie is."""


def remarks(latency: Latency) -> tuple[str, ...]:
    """Return what speaks against a timing, each as a clause; empty for a good one."""
    return tuple(
        words
        for words, told in (
            ("timing did not settle", not latency.settled),
            ("the machine was busy while this was timed", latency.disturbed),
            ("the machine's speed drifted while this was timed", latency.drifted),
        )
        if told
    )


def rivals_of_run(run: RunRecord) -> Mapping[int, tuple[int, ...]]:
    """Return for each trial that is part of a tie the others on the front that are as fast."""
    found: defaultdict[int, tuple[int, ...]] = defaultdict(tuple)
    for faster, slower in ties_of_run(run):
        found[faster] += (slower,)
        found[slower] += (faster,)
    return found


def retiming_in_words(run: RunRecord) -> str:
    """Return what timing the front once more has changed; empty before that has been done."""
    if not run.first_latency:
        return ""
    before = {trial.number for trial, _ in front_of_run(run.as_searched())}
    after = {trial.number for trial, _ in front_of_run(run)}
    timed = len(after & {REFERENCE, *run.first_latency})
    all_ = "The one point was" if timed == 1 else f"All {timed} points were"
    which = all_ if timed == len(after) else f"{timed} of {plural(len(after), 'point')} were"
    changes = [
        f"{len(numbers)} {what}"
        for numbers, what in ((before - after, "left the front"), (after - before, "came in"))
        if numbers
    ]
    found = len(ties_of_run(run))
    ties = f" {plural(found, 'pair')} of points {'is a tie' if found == 1 else 'are ties'}: {TIES}." if found else ""
    return f"{which} timed once more, side by side: {', '.join(changes) or 'the front stayed as it was'}.{ties}"
