"""A real search in a folder, with so many workers, whose figures are functions of the plan; it goes on where it was.

Every trial trains, exports and writes its network; what was measured is then replaced, so that the end does not depend
on how long anything took.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from beats_search.app.running import RunRequest, run
from beats_search.app.working import Workplace
from beats_search.records.outcome import Finished, TrialOutcome
from beats_search.records.plan import TrialPlan
from beats_search.records.search_plan import SearchPlan
from beats_search.search.attempt import KeepGoing
from beats_search.search.backends.local import Try, Workers
from beats_search.search.crew import Job
from beats_search.search.sitting import Problem
from beats_search.search.study import Drive, by

SPACE = """\
name: fire
dataset: {name: "toys:stripes"}
model: {name: "toys:net", width: {choice: [8, 12, 16, 24]}}
training:
  epochs: 2
  batch_size: 16
  lr: {choice: [0.01, 0.03, 0.1]}
compression:
  - {name: quantization, bits: {choice: [32, 8]}}
search: {sampler: sobol, probe: false, stop_early: false, retries: 1000}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Injected:
    """Opens what tries plans for real and tells figures that follow from the plan."""

    place: Workplace

    def __call__(self) -> Try:
        """Return what tries plans."""
        try_plan = self.place()

        def injected(job: Job, keep_going: KeepGoing) -> TrialOutcome:
            outcome = try_plan(job, keep_going)
            return _figures(job.plan, outcome) if isinstance(outcome, Finished) else outcome

        return injected


def _figures(plan: TrialPlan, outcome: Finished) -> Finished:
    chance = int(plan.fingerprint(), 16)
    latency = replace(outcome.latency, median_ms=1.0 + chance % 997)
    return replace(outcome, accuracy=(chance % 1009) / 1009, latency=latency)


def _hired(problem: Problem, place: Workplace, budget: SearchPlan) -> Drive:
    del problem, budget
    return by(Workers(Injected(place=place), [{}] * int(sys.argv[2])))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    space = folder / "fire.yaml"
    space.write_text(SPACE, encoding="utf-8")
    run(RunRequest(space=space, changes=(f"search.trials={sys.argv[3]}",), out=folder / "run"), hire=_hired)
