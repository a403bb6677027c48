"""First look: a space in, what must be known before anything of it is tried out."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from beats_search.app.targets import check_target
from beats_search.records.errors import BeatsError, CommandError, TrialError
from beats_search.records.plan import TrialPlan

if TYPE_CHECKING:
    from beats_search.measuring.energy import EnergyCounters
    from beats_search.measuring.quiet import QuietWindow
    from beats_search.space.knobs import SearchSpace
    from beats_search.trial.recipe import DataFacts
    from beats_search.trial.run import Reference


@contextlib.contextmanager
def first_look(space: "SearchSpace", window: "QuietWindow") -> "Iterator[tuple[TrialPlan, Reference, DataFacts]]":
    """Yield the reference's plan, its untrained file for all latencies to be paired with, and its data's facts.

    In the folder of that file, which goes in the end, processes tell each other what they have found out.

    Raises CommandError when this machine may not measure, the data cannot be loaded, the reference cannot be
    built and exported, or a value that counts cannot be measured on this machine.
    """
    from beats_search.measuring.energy import check_counted
    from beats_search.space.draw import reference_plan
    from beats_search.tensors.shelf import share_in
    from beats_search.trial.probe import check_device, count_macs, deploy_untrained
    from beats_search.trial.recipe import data_facts
    from beats_search.trial.run import Reference

    with tempfile.TemporaryDirectory(prefix="beats-search-") as aside, contextlib.ExitStack() as at_last:
        check_target(space)
        at_last.callback(share_in, None)
        share_in(Path(aside))
        try:
            counted = counters(space)
            reference = reference_plan(space, count_macs)
            if counted:
                check_counted(reference.runtime)
            data = data_facts(reference.dataset)
            check_device(reference)
            engine = deploy_untrained(reference, Path(aside) / "reference", window)
        except TrialError as error:
            raise CommandError(f"{space.file}: the reference: {error}") from error
        except BeatsError as error:
            raise CommandError(f"{space.file}: {error}") from error
        except (Exception, SystemExit) as error:  # data and models may be the user's code, which may raise anything
            raise CommandError(f"{space.file}: the reference: {first_line(error)}") from error
        yield reference, Reference(open=engine.open, file=engine.path), data


def counters(space: "SearchSpace") -> "EnergyCounters | None":
    """Return the machine's energy counters where a space asks for energy; CommandError where there are none."""
    from beats_search.measuring.energy import find_counters

    counting = [goal.name for goal in space.objectives] + [limit.name for limit in space.constraints]
    return find_counters() if "energy_mj" in counting else None


def first_line(error: BaseException) -> str:
    """Return what an error is and says, in one line."""
    return f"{type(error).__name__}: {error}".strip().partition("\n")[0]
