"""The store gives back what was put, to the bit or not at all, whoever else uses its folder, and keeps its limit."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from beats_search.trial import store as store_module
from beats_search.trial.store import Store

ENTRY = {"weights": {"a": torch.arange(6.0).reshape(2, 3).t(), "b": torch.ones(2, dtype=torch.int8)}, "n": 3}
LARGE = 10**9


def sized(count: int) -> dict[str, torch.Tensor]:
    """Return an entry of about that many bytes."""
    return {"bytes": torch.zeros(count, dtype=torch.uint8)}


def names(store: Store) -> list[str]:
    """Return the files in a store."""
    return sorted(path.name for path in store.folder.iterdir())


def entry_bytes(store: Store) -> int:
    """Return what all files of a store weigh together."""
    return sum(path.stat().st_size for path in store.folder.iterdir())


def used(store: Store, key: str, at: int) -> None:
    """Say when an entry was used last."""
    os.utime(store.folder / f"{key}.pt", (at, at))


def test_what_is_put_is_got(tmp_path: Path) -> None:
    """Tensors come back to the bit, with types and layouts, and the plain data beside them."""
    store = Store(tmp_path / "new" / "folder", LARGE)
    assert store.put("key", ENTRY)
    found = Store(store.folder, LARGE).get("key")
    assert found is not None
    assert found["n"] == 3
    for name, tensor in ENTRY["weights"].items():  # type: ignore[attr-defined]  # a mapping
        assert torch.equal(found["weights"][name], tensor)
        assert (found["weights"][name].dtype, found["weights"][name].stride()) == (tensor.dtype, tensor.stride())


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    """A key that was never put has no entry; one that was put twice has the later one."""
    store = Store(tmp_path, LARGE)
    assert store.get("key") is None
    assert not store.has("key")
    store.put("key", {"n": 1})
    store.put("key", {"n": 2})
    assert store.has("key")
    assert store.get("key") == {"n": 2}
    assert names(store) == ["key.pt"]


@settings(max_examples=30)
@given(at=st.floats(0, 1, exclude_max=True), how=st.sampled_from(["truncated", "flipped", "empty"]))
def test_a_damaged_entry_is_none_and_goes(at: float, how: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Wherever a file was cut or changed, it is no entry any more, it is removed, and can be put again."""
    store = Store(tmp_path_factory.mktemp("store"), LARGE)
    store.put("key", ENTRY)
    path = store.folder / "key.pt"
    content = bytearray(path.read_bytes())
    place = int(at * len(content))
    content[place] ^= 1
    path.write_bytes(bytes({"truncated": content[:place], "flipped": content, "empty": b""}[how]))
    assert store.get("key") is None
    assert not store.has("key")
    assert store.put("key", {"n": 1})
    assert store.get("key") == {"n": 1}


def test_nothing_is_unpickled_that_could_run(tmp_path: Path) -> None:
    """A file with an object of another class than plain data is no entry, however whole it is."""
    store = Store(tmp_path, LARGE)
    store.put("key", {"path": Path("/somewhere")})
    assert store.get("key") is None
    assert not store.has("key")


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    """Reading counts as use; what was used last stays, and the limit holds."""
    store = Store(tmp_path, 3 * len(store_module._packed(sized(20_000))) + 10)
    for at, key in enumerate("abc"):
        store.put(key, sized(20_000))
        used(store, key, at)
    assert store.get("a") is not None
    store.put("d", sized(20_000))
    assert names(store) == ["a.pt", "c.pt", "d.pt"]
    assert entry_bytes(store) <= store.limit_bytes


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(0, 30_000), min_size=1, max_size=8))
def test_the_limit_holds(sizes: list[int], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever is put, all entries together are never above the limit, and the last one that fits is there."""
    store = Store(tmp_path_factory.mktemp("store"), 40_000)
    for index, size in enumerate(sizes):
        assert store.put(str(index), sized(size))
        assert store.has(str(index))
        assert entry_bytes(store) <= store.limit_bytes


def test_what_is_larger_than_the_store_is_not_kept(tmp_path: Path) -> None:
    """An entry above the limit takes no other's place."""
    store = Store(tmp_path, 10_000)
    store.put("small", sized(10))
    assert not store.put("large", sized(20_000))
    assert names(store) == ["small.pt"]


def test_an_entry_may_go_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has read a file that another process removes right then still gets its entry."""
    store = Store(tmp_path, LARGE)
    store.put("key", ENTRY)
    read = Path.read_bytes

    def removed_after(path: Path) -> bytes:
        content = read(path)
        path.unlink()
        return content

    monkeypatch.setattr(Path, "read_bytes", removed_after)
    found = store.get("key")
    assert found is not None
    assert found["n"] == 3
    assert not store.has("key")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_keeps_nothing_and_breaks_nothing(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that fails leaves no file behind, and what was there stays."""
    store = Store(tmp_path, LARGE)
    store.put("key", {"n": 1})

    @contextmanager
    def full(descriptor: int, _: str) -> Iterator[object]:
        with open(descriptor, "wb") as file:
            yield _Full(file.fileno(), code)

    monkeypatch.setattr(os, "fdopen", full)
    assert not store.put("key", {"n": 2})
    assert not store.put("other", {"n": 2})
    assert names(store) == ["key.pt"]
    assert store.get("key") == {"n": 1}


class _Full:
    """A file on a disk that takes half of what is written."""

    def __init__(self, descriptor: int, code: int) -> None:
        self._descriptor, self._code = descriptor, code

    def fileno(self) -> int:
        return self._descriptor

    def write(self, content: bytes) -> None:
        os.write(self._descriptor, content[: len(content) // 2])
        raise OSError(self._code, "no space")


def test_no_lock_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no lock file can be made, or no lock taken, the work is done all the same."""

    def refused(*_: object, **__: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    store, done = Store(tmp_path, LARGE), []
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refused)
        with store.locked("key"):
            done.append(1)
    monkeypatch.setattr(store_module, "_take", refused)
    with store.locked("key"):
        done.append(2)
    assert done == [1, 2]


def test_a_lock_leaves_nothing_and_can_be_taken_again(tmp_path: Path) -> None:
    """A lock file goes with its lock, also when the work within fails."""
    store = Store(tmp_path, LARGE)
    with store.locked("key"):
        assert names(store) == ["key.lock"]
    assert not names(store)
    with pytest.raises(KeyError), store.locked("key"):
        raise KeyError
    assert not names(store)
    with store.locked("key"), store.locked("other"):
        pass
    assert not names(store)


def test_a_key_is_computed_by_one_at_a_time(tmp_path: Path) -> None:
    """Of eight threads that want one key, one computes it while the others wait, and all get the same."""
    store, computed, got = Store(tmp_path, LARGE), list[int](), list[object]()

    def work(number: int) -> None:
        with store.locked("key"):
            if store.get("key") is None:
                computed.append(number)
                store.put("key", {"by": number})
            got.append(store.get("key"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(computed) == 1
    assert got == [{"by": computed[0]}] * 8
    assert names(store) == ["key.pt"]


RACING = """
import sys, time
from pathlib import Path
from beats_search.trial.store import Store

store, computed = Store(Path(sys.argv[1]), 10**9), 0
print("ready", flush=True)
sys.stdin.readline()
for key in "abcd":
    with store.locked(key):
        if store.get(key) is None:
            time.sleep(0.05)
            store.put(key, {"by": sys.argv[2]})
            computed += 1
print(computed, [store.get(key)["by"] for key in "abcd"], flush=True)
"""

DYING = """
import sys, time
from pathlib import Path
from beats_search.trial.store import Store

def caught(self, target):
    print("writing", flush=True)
    time.sleep(600)

Path.replace = caught
store = Store(Path(sys.argv[1]), 10**9)
with store.locked("key"):
    store.put("key", {"n": 1})
"""


def started(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a process that runs this code."""
    command = [sys.executable, "-c", code, *(str(each) for each in arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_processes_compute_each_key_once(tmp_path: Path) -> None:
    """Two processes that race for the same keys share the work between them, and read the same."""
    racers = [started(RACING, tmp_path, name) for name in ("one", "other")]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    told = [racer.communicate()[0].strip().split(" ", maxsplit=1) for racer in racers]
    assert sum(int(count) for count, _ in told) == 4
    assert told[0][1] == told[1][1]


@pytest.mark.slow
def test_a_writer_that_is_killed_leaves_a_store_to_use(tmp_path: Path) -> None:
    """Killed in the middle of writing, with the lock held, a process leaves no entry, no lock, and no waste."""
    with started(DYING, tmp_path) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
        store = Store(tmp_path, LARGE)
        store.put("other", {"n": 1})
        assert sum(name.endswith(".part") for name in names(store)) == 1, "a file is left to who writes it"
        writer.send_signal(signal.SIGKILL)
    assert store.get("key") is None
    with store.locked("key"):
        assert store.put("key", {"n": 2})
    assert store.get("key") == {"n": 2}
    assert names(store) == ["key.pt", "other.pt"]


def test_a_limit_that_allows_nothing_is_refused(tmp_path: Path) -> None:
    """The error names the rule and the value."""
    with pytest.raises(ValueError, match="limit of at least 1 byte, got 0"):
        Store(tmp_path, 0)
