"""Latencies: searches in, how many times the reference's latency each of their structures takes out.

Every structure that any search finished is timed once more, side by side in one sitting, so that no
search is judged by its own timings.
"""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from beats_search.measuring.blocks import Protocol
from beats_search.measuring.latency import measure_together
from beats_search.records.idle import effective
from beats_search.records.plain import from_plain, to_plain
from beats_search.records.plan import TrialPlan
from beats_search.trial.probe import deploy_untrained
from search_efficiency_arms import Search
from search_efficiency_courses import write_aside

_PROTOCOL: Final = Protocol(half_width=0.02, budget_s=1.0)


def structure(plan: TrialPlan) -> str:
    """Return what is equal for plans whose files are as fast: all but how they were trained."""
    return json.dumps(to_plain((plan.model, tuple(map(effective, plan.compression)), plan.runtime)), sort_keys=True)


def latencies(
    searches: Sequence[Search], path: Path, placed: Callable[[TrialPlan], TrialPlan] = lambda plan: plan
) -> Mapping[str, float]:
    """Return the ratios of all structures that were finished, from `path` where that has them all.

    `placed` returns a plan whose data are where they are now.
    """
    tried = [each for search in searches for each in search.tried if each.accuracy is not None]
    plans = {structure(plan): plan for plan in (from_plain(TrialPlan, each.plan) for each in tried)}
    known: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if plans.keys() <= known.keys():
        return known
    reference = from_plain(TrialPlan, searches[0].tried[0].plan)
    with tempfile.TemporaryDirectory() as made:
        engines = [deploy_untrained(placed(plan), Path(made) / str(index)) for index, plan in enumerate(plans.values())]
        opened = deploy_untrained(placed(reference), Path(made) / "reference").open
        timed = measure_together([engine.open for engine in engines], opened, protocol=_PROTOCOL)
    ratios = {name: latency.ratio for name, latency in zip(plans, timed, strict=True)}
    write_aside(path, ratios)
    return ratios
