"""Checking: a space in, what can be known of it without training out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from beats_search import plugins
from beats_search.app.first_look import first_line, first_look
from beats_search.app.spaces import read
from beats_search.records.errors import CommandError
from beats_search.records.plan import TrialPlan

if TYPE_CHECKING:
    from beats_search.measuring.quiet import QuietWindow
    from beats_search.space.knobs import SearchSpace
    from beats_search.trial.probe import Probe
    from beats_search.trial.run import Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A plan of a space that was probed, or the reason why it could not be."""

    plan: TrialPlan
    probe: "Probe | None"
    problem: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What can be known of a space before anything is trained.

    `plans` is None for endlessly many; `notices` say what is allowed and may surprise.
    """

    space: "SearchSpace"
    plans: int | None
    knobs: tuple[tuple[str, str], ...]
    notices: tuple[str, ...]
    reference: Candidate
    candidates: tuple[Candidate, ...]

    @property
    def trial_seconds(self) -> float:
        """Mean of what a candidate would take, training included; 0 when none could be probed."""
        seconds = [candidate.seconds for candidate in self.candidates if candidate.probe]
        return sum(seconds) / len(seconds) if seconds else 0.0


def check(
    path: Path, changes: Sequence[str] = (), announce: Callable[[str], None] = lambda _: None, *, samples: int = 6
) -> CheckResult:
    """Validate a space and probe the reference and some random plans of it; trains nothing.

    `announce` is told each module that the space names, with its file, just before it is imported.
    """
    from beats_search.measuring.quiet import window_of_machine
    from beats_search.search.domain import domain_of
    from beats_search.search.sample import sample_plans
    from beats_search.space.draw import knob_in_words

    window = window_of_machine()
    with plugins.announcing(announce):
        space = read(path, changes)
    domain = domain_of(space)
    with first_look(space, window) as (reference, paired, data):
        probed = _candidate(reference, paired, window)
        if probed.probe is None:
            raise CommandError(f"{space.file}: the reference: {probed.problem}")
        return CheckResult(
            space=space,
            plans=domain.count,
            knobs=tuple((knob.path, knob_in_words(knob)) for knob in domain.knobs),
            notices=data.notices,
            reference=probed,
            candidates=tuple(_candidate(plan, paired, window) for plan in sample_plans(domain, samples, space.seed)),
        )


def _candidate(plan: TrialPlan, paired: "Reference", window: "QuietWindow") -> Candidate:
    from beats_search.trial.probe import probe, trial_seconds

    try:
        found = probe(plan, paired, window)
    except Exception as error:  # noqa: BLE001 - a candidate may be the user's code, which may raise anything
        return Candidate(plan=plan, probe=None, problem=first_line(error), seconds=0.0)
    return Candidate(plan=plan, probe=found, problem="", seconds=trial_seconds(plan, found))
