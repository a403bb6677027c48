"""App: a request in, a run folder, a page or a table's rows out. Joins space, search, trial and report.

The only module that sees every layer. Heavy libraries load in the function that needs them.
"""

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from beats_search import plugins
from beats_search.records.errors import BeatsError, CommandError, NothingFinishedError, SearchEndedError
from beats_search.records.event import Ended, Event, Notify, Retiming
from beats_search.records.outcome import Finished, TrialOutcome
from beats_search.records.plan import TrialPlan
from beats_search.records.run import REFERENCE, RunRecord
from beats_search.search.folder import check_folder, check_same_run, clear_folder, model_file, study_file, tidy_folder

if TYPE_CHECKING:
    from beats_search.measuring.energy import EnergyCounters
    from beats_search.measuring.quiet import QuietWindow
    from beats_search.report.tables import FrontRow
    from beats_search.search.ledger import Ledger
    from beats_search.search.replay import ReplayRow
    from beats_search.space.knobs import SearchSpace
    from beats_search.trial.probe import Probe
    from beats_search.trial.recipe import DataFacts
    from beats_search.trial.run import Instruments, Reference

Watch: TypeAlias = Callable[[Event, RunRecord], None]
"""Called with each event of a search and the run as it stands after it."""

_PAGE_EVERY_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What `run` is asked for; `changes` are `path=value` texts, `out` defaults to reports/<name>."""

    space: Path
    changes: tuple[str, ...] = ()
    out: Path | None = None
    fresh: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """Where a run is, how it stands, and why the search ended, as a sentence."""

    folder: Path
    record: RunRecord
    ending: str
    interrupted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A plan of a space that was probed, or the reason why it could not be."""

    plan: TrialPlan
    probe: "Probe | None"
    problem: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What can be known of a space before anything is trained. `plans` is None for endlessly many."""

    space: "SearchSpace"
    plans: int | None
    knobs: tuple[tuple[str, str], ...]
    reference: Candidate
    candidates: tuple[Candidate, ...]

    @property
    def trial_seconds(self) -> float:
        """Mean of what a candidate would take, training included; 0 when none could be probed."""
        seconds = [candidate.seconds for candidate in self.candidates if candidate.probe]
        return sum(seconds) / len(seconds) if seconds else 0.0


def run(request: RunRequest, watch: Watch = lambda _event, _record: None) -> RunResult:
    """Search a space, or go on with its search, and leave front, models and page in the run folder.

    Raises a BeatsError; after NothingFinishedError and SearchEndedError, what had finished is reported.
    """
    from beats_search.measuring.quiet import QuietWindow
    from beats_search.pareto import worst_corner
    from beats_search.search.domain import domain_of
    from beats_search.search.study import Ending, Problem, search
    from beats_search.trial.run import Instruments

    space = read(request.space, request.changes)
    folder = request.out or Path("reports") / space.name
    check_folder(folder, fresh=request.fresh)
    with _first_look(space) as (reference, paired, data):
        if request.fresh:
            clear_folder(folder)
        with _open_ledger(space, folder, reference, data) as ledger:
            tools = Instruments(window=QuietWindow(folder=folder), counters=_counters(space))
            problem = Problem(
                domain=domain_of(space),
                run_trial=_trials_of(ledger, folder, paired, tools),
                reference_point=partial(worst_corner, space.objectives, data.majority_share),
            )
            notify = _saving(ledger, folder, watch)
            try:
                ending = search(problem, ledger, space.search, notify)
                if ending is not Ending.INTERRUPTED and not _timed_once_more(ledger, folder, tools.window, notify):
                    ending = Ending.INTERRUPTED
            except (NothingFinishedError, SearchEndedError) as error:
                with contextlib.suppress(BeatsError, OSError):
                    _conclude(ledger, folder)
                if not ledger.run_record().finished():
                    raise NothingFinishedError(str(error)) from error
                raise
            record = _conclude(ledger, folder)
    return RunResult(folder=folder, record=record, ending=ending.value, interrupted=ending is Ending.INTERRUPTED)


def read(path: Path, changes: Sequence[str] = ()) -> "SearchSpace":
    """Read a space file; CommandError when there is none, SpaceError with all its mistakes."""
    from beats_search.space.schema import read_space

    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CommandError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise CommandError(f"{path} is a folder; a space is a YAML file in it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} cannot be read as text: {error}") from error
    return read_space(text, file=path, changes=changes)


def check(path: Path, changes: Sequence[str] = (), *, samples: int = 6) -> CheckResult:
    """Validate a space and probe the reference and some random plans of it; trains nothing."""
    from beats_search.search.domain import domain_of
    from beats_search.search.sample import sample_plans
    from beats_search.space.draw import knob_in_words

    space = read(path, changes)
    domain = domain_of(space)
    with _first_look(space) as (reference, paired, _):
        probed = _candidate(reference, paired)
        if probed.probe is None:
            raise CommandError(f"{space.file}: the reference: {probed.problem}")
        return CheckResult(
            space=space,
            plans=domain.count,
            knobs=tuple((knob.path, knob_in_words(knob)) for knob in domain.knobs),
            reference=probed,
            candidates=tuple(_candidate(plan, paired) for plan in sample_plans(domain, samples, space.seed)),
        )


def show(folder: Path) -> tuple[RunRecord, tuple["FrontRow", ...]]:
    """Return a run and the rows of its front; CommandError when the folder holds no run."""
    from beats_search.report.tables import front_rows

    record = read_record(folder)
    return record, front_rows(record)


def front_json(folder: Path) -> str:
    """Return a run's front as the text of front.json."""
    from beats_search.report.front import front_document

    return json.dumps(front_document(read_record(folder)), indent=2, allow_nan=False)


def report(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write the page of one run, or one page that compares several, and return its path."""
    from beats_search.report.page import write_page, write_results

    records = [read_record(folder) for folder in folders]
    if out is None and len(folders) == 1:
        write_results(records[0], folders[0])
        return folders[0] / "report.html"
    page = out or Path("comparison.html")
    page.parent.mkdir(parents=True, exist_ok=True)
    write_page(records, page, folders=folders)
    return page


def export(folder: Path, number: int, to: Path) -> tuple[Path, ...]:
    """Copy a finished trial's model and card to a folder, beside a script that runs it; return the files."""
    from beats_search.report.export import export_trial

    return export_trial(read_record(folder), number, model_file(folder, number), to)


def replay(folder: Path, samplers: Sequence[str]) -> tuple["ReplayRow", ...]:
    """Compare samplers by name on the finished trials of a run, without training."""
    from beats_search.records.part import Part
    from beats_search.search.domain import domain_of
    from beats_search.search.reading import read_facts
    from beats_search.search.replay import replay as replay_run
    from beats_search.space.schema import read_space

    record = read_record(folder)
    facts = read_facts(study_file(folder))
    space = read_space(facts.space_text, file=Path(facts.space_file))
    unknown = [name for name in samplers if name not in plugins.names("samplers")]
    if unknown or not samplers:
        some = ", ".join(unknown) or "none"
        raise CommandError(f"--sampler takes names of {', '.join(plugins.names('samplers'))}, got {some}")
    return replay_run(record, domain_of(space), [Part(name=name) for name in samplers])


def parts() -> tuple[plugins.PartLine, ...]:
    """Return every part of every shelf with one line on what it is."""
    return plugins.all_parts()


def schema() -> str:
    """Return the JSON Schema of a space as text."""
    from beats_search.space.schema import json_schema

    return json.dumps(json_schema(), indent=2)


def read_record(folder: Path) -> RunRecord:
    """Return the run in a folder; CommandError when there is none."""
    from beats_search.search.reading import read_run

    if not study_file(folder).is_file():
        what = "is not a folder" if not folder.is_dir() else "holds no run of beats-search (no study.db)"
        raise CommandError(f"{folder} {what}; a run's folder is what `beats-search run` writes, like reports/digits")
    return read_run(study_file(folder))


@contextlib.contextmanager
def _first_look(space: "SearchSpace") -> "Iterator[tuple[TrialPlan, Reference, DataFacts]]":
    """Yield the reference's plan, its untrained file for all latencies to be paired with, and its data's facts.

    Raises CommandError when the data cannot be loaded, the reference cannot be built and exported, or a
    value that counts cannot be measured on this machine.
    """
    from beats_search.space.draw import reference_plan
    from beats_search.trial.probe import check_device, count_macs, deploy_untrained
    from beats_search.trial.recipe import data_facts
    from beats_search.trial.run import Reference

    with tempfile.TemporaryDirectory(prefix="beats-search-") as aside:
        try:
            _counters(space)
            reference = reference_plan(space, count_macs)
            data = data_facts(reference.dataset)
            check_device(reference)
            engine = deploy_untrained(reference, Path(aside) / "reference")
        except BeatsError as error:
            raise CommandError(f"{space.file}: {error}") from error
        except (Exception, SystemExit) as error:  # data and models may be the user's code, which may raise anything
            raise CommandError(f"{space.file}: the reference: {_first_line(error)}") from error
        yield reference, Reference(open=engine.open), data


def _counters(space: "SearchSpace") -> "EnergyCounters | None":
    """Return the machine's energy counters where a space asks for energy; CommandError where there are none."""
    from beats_search.measuring.energy import find_counters

    counting = [goal.name for goal in space.objectives] + [limit.name for limit in space.constraints]
    return find_counters() if "energy_mj" in counting else None


def _open_ledger(space: "SearchSpace", folder: Path, reference: TrialPlan, data: "DataFacts") -> "Ledger":
    """Open the run's ledger, or start one; CommandError when the folder holds another space's run."""
    from beats_search.measuring.machine import describe_machine
    from beats_search.report.files import replace_text
    from beats_search.search.ledger import Ledger
    from beats_search.search.reading import RunFacts

    facts = RunFacts(
        name=space.name,
        seed=space.seed,
        space_text=space.text,
        space_file=str(Path(space.file).resolve()),
        space_canonical=space.canonical(),
        objectives=space.objectives,
        constraints=space.constraints,
        reference=reference,
        environment=describe_machine(),
        classes=data.classes,
        input_shape=data.input_shape,
        columns=data.columns,
        data_digest=data.digest,
    )
    study = study_file(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        ledger = Ledger.open(study) if study.is_file() else Ledger.create(study, facts)
    except SearchEndedError as error:
        raise NothingFinishedError(str(error)) from error
    except PermissionError as error:
        raise CommandError(f"{folder} cannot be written: {error.strerror}; --out names another folder") from error
    with contextlib.ExitStack() as stack:
        stack.callback(ledger.close)
        check_same_run(ledger.facts, facts, folder)
        tidy_folder(folder)
        replace_text(folder / "space.yaml", space.text)
        replace_text(folder / "environment.json", json.dumps(ledger.facts.environment, indent=2))
        stack.pop_all()
    return ledger


def _trials_of(
    ledger: "Ledger", folder: Path, paired: "Reference", tools: "Instruments"
) -> Callable[[int, TrialPlan], TrialOutcome]:
    """Return what runs a trial in a folder, its latency on the scale of trial 0 as soon as that has finished."""
    from beats_search.trial.run import run_trial

    def run_number(number: int, plan: TrialPlan) -> TrialOutcome:
        known = ledger.account.records.get(REFERENCE)
        median = known.outcome.latency.median_ms if known and isinstance(known.outcome, Finished) else None
        return run_trial(plan, model_file(folder, number).parent, replace(paired, median_ms=median), instruments=tools)

    return run_number


def _saving(ledger: "Ledger", folder: Path, watch: Watch) -> Notify:
    """Return a `notify` that keeps the results on disk as good as the trials that have ended."""
    from beats_search.report.page import write_results, write_tables

    drawn = time.monotonic()

    def note(event: Event) -> None:
        nonlocal drawn
        record = ledger.run_record()
        if isinstance(event, Ended):
            write_tables(record, folder)
            if time.monotonic() - drawn > _PAGE_EVERY_S:
                write_results(record, folder)
                drawn = time.monotonic()
        watch(event, record)

    return note


def _timed_once_more(ledger: "Ledger", folder: Path, window: "QuietWindow", notify: Notify) -> bool:
    """Time what may be on the front side by side and note it; tell whether that was not interrupted."""
    from beats_search.trial.retiming import retime, to_retime

    record, model_of = ledger.run_record(), partial(model_file, folder)
    trials = to_retime(record, model_of)
    try:
        if trials:
            notify(Retiming(count=len(trials)))
            with window.measuring():
                ledger.set_final_latencies(retime(record, trials, model_of))
    except KeyboardInterrupt:
        return False
    return True


def _conclude(ledger: "Ledger", folder: Path) -> RunRecord:
    """Test the front on the split that no search has seen, write all results, and return the run."""
    from beats_search.pareto import front_of_run
    from beats_search.report.page import write_results
    from beats_search.trial.run import test_accuracy

    record = ledger.run_record()
    known = dict(record.test_accuracy)
    for trial, _ in (*front_of_run(record), *record.finished()[:1]):
        model = model_file(folder, trial.number)
        if trial.number not in known and model.exists():
            known[trial.number] = test_accuracy(trial.plan, model)
    ledger.set_test_accuracy(known)
    record = ledger.run_record()
    write_results(record, folder)
    return record


def _candidate(plan: TrialPlan, paired: "Reference") -> Candidate:
    from beats_search.trial.probe import probe, trial_seconds

    try:
        found = probe(plan, paired)
    except Exception as error:  # noqa: BLE001 - a candidate may be the user's code, which may raise anything
        return Candidate(plan=plan, probe=None, problem=_first_line(error), seconds=0.0)
    return Candidate(plan=plan, probe=found, problem="", seconds=trial_seconds(plan, found))


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip().partition("\n")[0]
