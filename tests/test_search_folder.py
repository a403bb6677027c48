"""Folder: what a run did not write is never deleted, and what a killed start left is no obstacle."""

from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from search_toy import facts

from beats_search.records.errors import CommandError
from beats_search.search.folder import check_folder, check_same_run, clear_folder, tidy_folder
from beats_search.search.ledger import Ledger


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a folder with a run of ours in it."""
    folder = tmp_path / "run"
    folder.mkdir()
    Ledger.create(folder / "study.db", facts()).close()
    (folder / "models" / "3").mkdir(parents=True)
    for name in ("space.yaml", "environment.json", "front.json", "models/3/model.onnx", "models/3/card.json"):
        (folder / name).write_text("{}")
    return folder


def _names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_run_of_ours_is_cleared_whole(run: Path) -> None:
    """All that a run wrote goes, but for the lock."""
    check_folder(run, fresh=True)
    clear_folder(run)
    assert _names(run) == {"study.lock"}


@pytest.mark.parametrize(
    "stranger",
    ["notes.txt", "models/notes.txt", "models/best/model.onnx", "models/3/weights.pt", "space.yaml.bak", "deep/er/x"],
)
def test_a_stranger_anywhere_in_the_folder_stops_the_clearing(stranger: str, run: Path) -> None:
    """A file or folder that no run writes is named, at whatever depth, and nothing is deleted."""
    (run / stranger).parent.mkdir(parents=True, exist_ok=True)
    (run / stranger).write_text("mine")
    before = _names(run)
    with pytest.raises(CommandError, match="this it did not"):
        check_folder(run, fresh=True)
    assert _names(run) == before
    check_folder(run, fresh=False)


def test_a_link_is_a_stranger(run: Path, tmp_path: Path) -> None:
    """A symbolic link is not followed, and not deleted."""
    (tmp_path / "elsewhere").mkdir()
    (run / "models" / "7").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(CommandError, match="models/7"):
        check_folder(run, fresh=True)


def test_another_program_s_study_is_not_ours(tmp_path: Path) -> None:
    """A study.db that somebody else's Optuna wrote is not deleted by --fresh."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")
    optuna.create_study(storage=storage, study_name="theirs")
    storage.remove_session()
    storage.engine.dispose()
    with pytest.raises(CommandError, match="no study of beats-search"):
        check_folder(tmp_path, fresh=True)


def test_a_damaged_run_can_be_started_anew(run: Path) -> None:
    """A study that cannot be read is ours where its companions are."""
    (run / "study.db").write_bytes(b"damaged" * 1000)
    check_folder(run, fresh=True)


@pytest.mark.parametrize("left", [["study.lock"], ["study.lock", "study.new"], []])
def test_a_start_that_was_cut_off_is_no_obstacle(left: list[str], tmp_path: Path) -> None:
    """What only a killed start of ours leaves does not count."""
    for name in left:
        (tmp_path / name).write_text("")
    check_folder(tmp_path, fresh=False)
    check_folder(tmp_path, fresh=True)


def test_a_space_alone_is_the_user_s(tmp_path: Path) -> None:
    """A folder that holds nothing but a space file is not taken for a run: the file would be overwritten."""
    (tmp_path / "space.yaml").write_text("name: mine")
    with pytest.raises(CommandError, match="no run of beats-search"):
        check_folder(tmp_path, fresh=False)


def test_what_was_written_aside_is_tidied_up(run: Path) -> None:
    """Leftovers of a killed process go; everything else stays."""
    before = _names(run)
    (run / ".report.html.4711").write_text("half")
    (run / "models" / "3" / ".card.json.12").write_text("half")
    (run / "models" / ".trial-x").mkdir()
    check_folder(run, fresh=True)
    tidy_folder(run)
    assert _names(run) == before


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    """A path that is a file is refused."""
    (tmp_path / "out").write_text("")
    with pytest.raises(CommandError, match="is a file"):
        check_folder(tmp_path / "out", fresh=False)


THEN = replace(facts(), data_digest="some", environment={"processor": "P", "instructions": "avx2", "onnxruntime": "1"})


def test_a_run_goes_on_wherever_its_space_lies() -> None:
    """The same space, data and machine are the same run, also when the file was moved."""
    check_same_run(THEN, replace(THEN, space_file="/elsewhere/toy.yaml"), Path("run"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "other"}, "of another space"),
        ({"data_digest": "other"}, "on other data"),
        (
            {"environment": {**THEN.environment, "onnxruntime": "2"}},
            "was timed with onnxruntime '1', and here it is '2'",
        ),
    ],
)
def test_what_does_not_compare_is_no_continuation(change: dict[str, object], words: str) -> None:
    """Another space, other data, or another way of timing is refused, with what to do."""
    with pytest.raises(CommandError, match=f"{words}.*--fresh"):
        check_same_run(THEN, replace(THEN, **change), Path("run"))  # type: ignore[arg-type]  # from a dict


def test_a_run_from_before_its_data_were_noted_goes_on() -> None:
    """A study that knows no digest of its data is taken at its word."""
    check_same_run(replace(THEN, data_digest=""), THEN, Path("run"))
