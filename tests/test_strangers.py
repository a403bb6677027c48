"""Run folders of strangers: `show` and `report` of whatever a study may hold end in words, and touch nothing else."""

import json
import os
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from cli_calls import call
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from search_toy import budget, sit
from sqlalchemy.exc import SQLAlchemyError

from beats_search.app.runs import report, show
from beats_search.records.errors import CommandError
from beats_search.report.files import replace_text
from beats_search.search import rows
from beats_search.search.reading import read_run

MAGIC = bytes.fromhex("d9d505f920a163d7")
ESCAPE = "\x1b]0;pwned\x07"

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the study of a run."""
    path = tmp_path_factory.mktemp("a run") / "study.db"
    sit(path, budget(6))
    return path.read_bytes()


@pytest.fixture
def run(study: bytes, tmp_path: Path) -> Path:
    """Return the folder of a run."""
    (tmp_path / "study.db").write_bytes(study)
    return tmp_path


def change(run: Path, statement: str, *values: object) -> None:
    """Change the study of a run behind its back."""
    with closing(sqlite3.connect(run / "study.db")) as connection, connection:
        assert connection.execute(statement, values).rowcount


def replaced(document: object, place: int, by: object) -> object:
    """Return a document whose value number `place`, counted from the outside, is another."""
    left = place

    def walk(value: object) -> object:
        nonlocal left
        left -= 1
        if left == -1:
            return by
        if isinstance(value, dict):
            return {key: walk(item) for key, item in value.items()}
        return [walk(item) for item in value] if isinstance(value, list) else value

    return walk(document)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(of=st.sampled_from(["trial", "study"]), which=st.integers(0, 10**6), place=st.integers(0, 40), by=VALUES)
def test_a_study_of_anything_is_shown_or_refused_in_words(
    run: Path, of: str, which: int, place: int, by: object
) -> None:
    """Whatever one value of a trial or of the study is replaced by, the command ends as it should, or in a message."""
    table, row_id = f"{of}_user_attributes", f"{of}_user_attribute_id"
    with closing(sqlite3.connect(run / "study.db")) as connection:
        rows = connection.execute(f"SELECT {row_id}, value_json FROM {table} ORDER BY 1").fetchall()  # noqa: S608 - ours
    row, written = rows[which % len(rows)]
    changed = json.dumps(replaced(json.loads(written), place, by))
    statement = f"UPDATE {table} SET value_json = ? WHERE {row_id} = ?"  # noqa: S608 - ours
    change(run, statement, changed, row)
    for command in ("show", "report"):
        ended = call(command, run)
        assert ended.exit_code in {0, 2}, ended.output
    change(run, statement, written, row)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE trials SET number = '../../..'",
        "UPDATE trial_params SET param_value = 1e9",
        "UPDATE trial_params SET distribution_json = '{}'",
        "UPDATE study_user_attributes SET value_json = '3' WHERE key = 'objectives'",
        "UPDATE study_user_attributes SET value_json = '[]' WHERE key = 'objectives'",
        "UPDATE trial_user_attributes SET value_json = CAST(x'ff' AS TEXT)",
        "UPDATE study_directions SET direction = 'XX'",
        "UPDATE study_user_attributes SET value_json = '{\"accuracy\": []}' WHERE key = 'reference_point'",
        "UPDATE trial_user_attributes SET value_json = '" + 100_000 * "[" + "' WHERE key = 'plan'",
    ],
)
@pytest.mark.parametrize("command", [show, lambda folder: report([folder])])
def test_damage_is_told(run: Path, statement: str, command: Callable[[Path], object]) -> None:
    """Numbers that are paths, values that no distribution has, nesting without end."""
    change(run, statement)
    with pytest.raises(CommandError, match="damaged"):
        command(run)


def test_a_study_that_leads_elsewhere_is_left_alone(run: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A journal that names a further file, which SQLite would delete, and a link to a database of someone else."""
    precious = tmp_path_factory.mktemp("elsewhere") / "precious"
    precious.write_text("mine", encoding="ascii")
    name, pages = str(precious).encode(), (run / "study.db").stat().st_size // 4096
    head = MAGIC + struct.pack(">IIIII", 0, 0, pages, 512, 4096)
    trailer = struct.pack(">I", 0x40000000 // 4096 + 1) + name + struct.pack(">II", len(name), sum(name)) + MAGIC
    journal = run / "study.db-journal"
    journal.write_bytes(head.ljust(512, b"\0") + trailer)
    for command in ("show", "report"):
        assert call(command, run).exit_code == 2
    assert precious.read_text(encoding="ascii") == "mine"
    journal.unlink()
    (run / "study.db").rename(precious.with_name("theirs.db"))
    (run / "study.db").symlink_to(precious.with_name("theirs.db"))
    assert call("show", run).exit_code == 2


def test_a_text_is_no_markup_of_the_terminal(run: Path) -> None:
    """Neither a link nor a tag that nobody opened: it is printed as it stands."""
    with closing(sqlite3.connect(run / "study.db")) as connection:
        read = "SELECT trial_user_attribute_id, value_json FROM trial_user_attributes WHERE key = 'outcome' ORDER BY 1"
        row, written = connection.execute(read).fetchone()
    for text in ("int[/x]8", "[link=http://evil]fp32"):
        outcome = {**json.loads(written), "executed_as": text}
        write = "UPDATE trial_user_attributes SET value_json = ? WHERE trial_user_attribute_id = ?"
        change(run, write, json.dumps(outcome), row)
        shown = call("show", run)
        assert shown.exit_code == 0, shown.output
        assert text in shown.output


def test_texts_of_a_run_do_not_steer_the_terminal(run: Path) -> None:
    """No control character of a name or a plan is printed, nor one of a message about it."""
    change(run, "UPDATE study_user_attributes SET value_json = ? WHERE key = 'name'", json.dumps(ESCAPE + "name"))
    shown = call("show", run)
    assert shown.exit_code == 0
    assert "name" in shown.output
    assert "\x1b]" not in shown.output
    assert "\x07" not in shown.output
    change(run, "UPDATE trial_user_attributes SET value_json = ? WHERE key = 'plan'", json.dumps({ESCAPE: 1}))
    refused = call("show", run)
    assert refused.exit_code == 2
    assert "\x1b]" not in refused.output


def test_tables_of_another_shape_are_read_by_optuna(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its own tables are not as they were, the run is the same, if slower."""

    def changed(*_: object) -> object:
        raise SQLAlchemyError

    usual = read_run(run / "study.db")
    monkeypatch.setattr(rows, "_rows", changed)
    assert read_run(run / "study.db") == usual


def test_a_report_writes_through_no_link(run: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Neither a folder of models elsewhere nor a file that is written aside leads out of the run's folder."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "1").mkdir()
    (run / "models").symlink_to(elsewhere)
    (run / "front.json").symlink_to(elsewhere / "front.json")
    report([run])
    assert not list(elsewhere.rglob("*.json"))
    assert not (run / "front.json").is_symlink()


def test_a_link_where_a_file_is_written_aside_is_removed(tmp_path: Path) -> None:
    """What it led to stays as it was."""
    precious = tmp_path / "precious"
    precious.write_text("mine", encoding="ascii")
    (tmp_path / f".page.{os.getpid()}").symlink_to(precious)
    replace_text(tmp_path / "page", "theirs")
    assert precious.read_text(encoding="ascii") == "mine"
    assert (tmp_path / "page").read_text(encoding="ascii") == "theirs"
