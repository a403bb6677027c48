"""Runs: the folder of a run in, its front, its page, its models, or a comparison of samplers on it out."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from beats_search import plugins
from beats_search.records.errors import CommandError
from beats_search.records.run import RunRecord
from beats_search.search.folder import model_file, study_file

if TYPE_CHECKING:
    from beats_search.report.tables import FrontRow
    from beats_search.search.replay import ReplayRow


def show(folder: Path) -> tuple[RunRecord, tuple["FrontRow", ...]]:
    """Return a run and the rows of its front; CommandError when the folder holds no run, or a damaged one."""
    from beats_search.report.tables import front_rows

    record = read_record(folder)
    with _told(folder):
        return record, front_rows(record)


def front_json(folder: Path) -> str:
    """Return a run's front as the text of front.json."""
    from beats_search.report.front import front_document

    record = read_record(folder)
    with _told(folder):
        return json.dumps(front_document(record), indent=2, allow_nan=False)


def report(folders: Sequence[Path], out: Path | None = None) -> Path:
    """Write the page of one run, or one page that compares several, and return its path."""
    from beats_search.report.page import write_page, write_results

    records = [read_record(folder) for folder in folders]
    with _told(*folders):
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
    from beats_search.app.usual import starting_at
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
    domain = starting_at(domain_of(space), space, facts.reference)
    return replay_run(record, domain, [Part(name=name) for name in samplers])


@contextlib.contextmanager
def _told(*folders: Path) -> Iterator[None]:
    """Turn what cannot be told of runs into CommandError: no search has written it, unless we have a defect."""
    try:
        yield
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        which, what = " or ".join(map(str, folders)), f"{type(error).__name__}: {error}"
        text = f"{which} is damaged, or beats-search has a defect ({what:.200}); --debug shows where"
        raise CommandError(text) from error


def read_record(folder: Path) -> RunRecord:
    """Return the run in a folder; CommandError when there is none."""
    from beats_search.search.reading import read_run

    if not study_file(folder).is_file():
        what = "is not a folder" if not folder.is_dir() else "holds no run of beats-search (no study.db)"
        raise CommandError(f"{folder} {what}; a run's folder is what `beats-search run` writes, like reports/digits")
    return read_run(study_file(folder))
