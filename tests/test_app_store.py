"""Where trained stages are kept: as the environment says, and in plain words where that cannot be."""

from dataclasses import replace
from pathlib import Path

import pytest
from search_toy import space

from beats_search.app.problem import STORE, store_of
from beats_search.records.errors import CommandError
from beats_search.records.search_plan import SearchPlan


def test_the_environment_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is made where the variable says."""
    monkeypatch.setenv(STORE, str(tmp_path / "kept" / "here"))
    store = store_of(space())
    assert store == tmp_path / "kept" / "here"
    assert store.is_dir()


def test_a_folder_that_cannot_be_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what, where, and both ways out."""
    (tmp_path / "file").touch()
    monkeypatch.setenv(STORE, str(tmp_path / "file" / "store"))
    with pytest.raises(CommandError, match=r"kept in .*file/store: Not a directory; set BEATS_SEARCH_STORE .*reuse"):
        store_of(space())


def test_nothing_is_kept_where_that_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `reuse: false` there is no store, and no folder is made."""
    monkeypatch.setenv(STORE, str(tmp_path / "store"))
    assert store_of(replace(space(), search=SearchPlan(reuse=False))) is None
    assert not (tmp_path / "store").exists()
