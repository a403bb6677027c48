"""The depot: what one machine has trained reaches another through any place that fsspec writes to."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import torch

from beats_search.app.problem import STORE, check_depot, depot_address
from beats_search.records.errors import CommandError
from beats_search.trial.depot import Depot
from beats_search.trial.store import Store


@pytest.fixture(params=["file", "memory"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return the address of a folder of its own."""
    if request.param == "file":
        yield f"file://{tmp_path}/shared"
        return
    name = f"/stages-{uuid.uuid4().hex}"
    yield f"memory:/{name}"
    fsspec.filesystem("memory").rm(name, recursive=True)


def machine(folder: Path, address: str) -> Store:
    """Return the store of a machine that has just begun."""
    depot = Depot(address)
    depot.check()
    return Store(folder, 10**6, depot)


def test_an_entry_reaches_another_machine(address: str, tmp_path: Path) -> None:
    """It is there by its key, whole, and then kept on that machine."""
    one = machine(tmp_path / "one", address)
    assert one.put("key", {"weights": torch.arange(5.0), "seconds": 2.0})
    two = machine(tmp_path / "two", address)
    assert two.has("key")
    assert not two.has("other")
    found = two.get("key")
    assert found is not None
    assert torch.equal(found["weights"], torch.arange(5.0))
    assert Store(tmp_path / "two", 10**6).has("key")


def test_what_is_not_whole_is_none(address: str, tmp_path: Path) -> None:
    """An entry that was damaged on its way is computed again, and the next one put in its place."""
    one = machine(tmp_path / "one", address)
    one.put("key", {"seconds": 2.0})
    files, folder = fsspec.core.url_to_fs(address)
    whole = files.cat_file(f"{folder}/key.pt")
    files.pipe_file(f"{folder}/key.pt", whole[:-3])
    two = machine(tmp_path / "two", address)
    assert two.get("key") is None
    two.put("key", {"seconds": 3.0})
    assert machine(tmp_path / "three", address).get("key") == {"seconds": 3.0}


def test_a_place_that_is_gone_is_as_if_nothing_were_there(tmp_path: Path) -> None:
    """The machine goes on with its own store."""
    store = Store(tmp_path / "one", 10**6, Depot("nosuch://bucket/stages"))
    assert store.put("key", {"seconds": 2.0})
    assert store.get("key") == {"seconds": 2.0}
    assert store.get("other") is None
    assert not store.has("other")


def test_the_place_is_looked_at_seldom(address: str, tmp_path: Path) -> None:
    """For ten seconds the last look holds."""
    now = [100.0]
    depot = Depot(address, clock=lambda: now[0])
    depot.check()
    assert not depot.has("key")
    machine(tmp_path / "one", address).put("key", {"seconds": 2.0})
    assert not depot.has("key")
    now[0] += 10.5
    assert depot.has("key")


@pytest.mark.parametrize("address", ["nosuch://bucket/stages", "file:///proc/nothing/here"])
def test_an_address_that_cannot_be_used_is_told(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is trained, with the variable that names it."""
    monkeypatch.setenv(STORE, address)
    with pytest.raises(CommandError, match=f"trained stages cannot be kept at {STORE}={address}"):
        check_depot()


def test_a_folder_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable names a folder as before."""
    monkeypatch.setenv(STORE, str(tmp_path))
    assert depot_address() == ""
