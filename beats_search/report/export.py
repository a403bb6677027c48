"""Export: a finished trial and its model in, a folder with all that is needed to run it out."""

import json
from pathlib import Path

from beats_search.records.errors import CommandError
from beats_search.records.run import RunRecord
from beats_search.report.cards import card
from beats_search.report.script import run_script


def export_trial(record: RunRecord, number: int, model: Path, to: Path) -> tuple[Path, ...]:
    """Copy a model to a folder beside its card and a script that runs it, and return the files.

    CommandError when the trial has not finished, its model is gone, or a file would be overwritten.
    """
    finished = {trial.number: (trial, outcome) for trial, outcome in record.finished()}
    if number not in finished:
        these = ", ".join(str(known) for known in sorted(finished)) or "none"
        raise CommandError(f"trial {number} has not finished; these have: {these}")
    if not model.exists():
        raise CommandError(f"{model} is gone; run the same plan again with --fresh to make it")
    contents = {
        to / model.name: model.read_bytes(),
        to / "card.json": json.dumps(dict(card(record, *finished[number])), indent=2).encode(),
        to / "run.py": run_script(record, finished[number][0].plan.runtime.name).encode(),
    }
    taken = [str(path) for path, content in contents.items() if path.exists() and path.read_bytes() != content]
    if taken:
        raise CommandError(f"export would overwrite {', '.join(taken)}; --to names another folder")
    to.mkdir(parents=True, exist_ok=True)
    for path, content in contents.items():
        path.write_bytes(content)
    return tuple(contents)
