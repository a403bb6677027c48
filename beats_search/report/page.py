"""Page: runs in, one offline HTML file out; and all the files that a run leaves in its folder.

The page loads nothing: plotly, styles and script are inside, and its security policy forbids the rest.
Every file is written beside its place and then moved there, so that a reader never sees half of it.
"""

import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from beats_search.records.errors import CommandError
from beats_search.records.plain import Plain
from beats_search.records.run import RunRecord
from beats_search.report import measures
from beats_search.report.cards import card
from beats_search.report.comparison import compare
from beats_search.report.embedding import content_security_policy, to_script_json
from beats_search.report.files import replace_text
from beats_search.report.front import front_document, model_folder
from beats_search.report.links import CARD, Links
from beats_search.report.palette import DARK, LIGHT, darker
from beats_search.report.precision import numbered
from beats_search.report.sections import run_section
from beats_search.report.tables import trials_csv
from beats_search.report.timing import TIES

_ROWS: Final = 500
"""How many trials a table shows at a time; a browser needs a second to lay out some thousands."""


def write_page(runs: Sequence[RunRecord], path: Path, *, folders: Sequence[Path]) -> None:
    """Write the page of one run, or of several compared, to `path`; `folders` are those of the runs, in order.

    Models are linked relative to the page where their files exist. Raises CommandError without a run.
    """
    if not runs or len(runs) != len(folders):
        raise CommandError(f"a page needs at least one run, each with its folder, got {len(runs)} and {len(folders)}")
    replace_text(path, _page(runs, path, folders))


def write_results(run: RunRecord, folder: Path) -> None:
    """Write front.json, trials.csv, report.html, and a card beside each model of a run into its folder."""
    write_tables(run, folder)
    home = folder.resolve()
    for trial, outcome in run.finished():
        beside = folder / model_folder(trial.number)
        if beside.is_dir() and beside.resolve() == home / model_folder(trial.number):  # no link leads elsewhere
            replace_text(beside / CARD, _json(dict(card(run, trial, outcome))))
    write_page([run], folder / "report.html", folders=[folder])


def write_tables(run: RunRecord, folder: Path) -> None:
    """Write front.json and trials.csv of a run into its folder, which takes no time worth counting."""
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / "front.json", _json(dict(front_document(run))))
    replace_text(folder / "trials.csv", trials_csv(run))


def _page(runs: Sequence[RunRecord], path: Path, folders: Sequence[Path]) -> str:
    anchors = [f"run-{number}" for number in range(1, len(runs) + 1)]
    shelves = [Links(folder=folder, page=path) for folder in folders]
    scripts = (get_plotlyjs(), _asset("page.js"))
    return _template().render(
        title=runs[0].name if len(runs) == 1 else f"{len(runs)} runs compared",
        policy=content_security_policy(scripts),
        scripts=[Markup(script) for script in scripts],  # noqa: S704 - ours and plotly's, not the user's
        style=Markup(_asset("page.css")),  # noqa: S704 - ours
        light=LIGHT,
        dark=DARK,
        darker=to_script_json(darker()),
        comparison=compare(runs, anchors) if len(runs) > 1 else None,
        rows=_ROWS,
        sections=[run_section(*parts) for parts in zip(runs, shelves, anchors, strict=True)],
    )


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("beats_search", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        measured=measures.measured,
        between=measures.between,
        times=measures.times,
        counted=measures.counted,
        duration=measures.duration,
        significant=measures.significant,
        numbered=numbered,
        ties=TIES,
    )
    return environment.get_template("page.html.jinja")


def _asset(name: str) -> str:
    return resources.files("beats_search.report").joinpath(name).read_text(encoding="utf-8")


def _json(document: Plain) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
