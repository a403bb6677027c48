"""The quiet window, with real processes: who measures does so alone, soon, and whatever happens to others."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import ClassVar

import pytest
from cli_calls import call, write

from beats_search.compression.channel_pruning import ChannelPruning
from beats_search.measuring import quiet
from beats_search.measuring.quiet import QuietWindow, window_of_machine
from beats_search.records.outcome import Finished
from beats_search.records.part import Part
from beats_search.records.plan import TrainingPlan, TrialPlan
from beats_search.runtimes.onnxruntime import OnnxRuntime, OnnxRuntimeEngine
from beats_search.trial import probe as probing
from beats_search.trial import recipe
from beats_search.trial import run as trial_run
from beats_search.trial.confirming import confirm
from beats_search.trial.probe import deploy_untrained
from beats_search.trial.run import Instruments, Reference, run_trial

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no shared locks")

_SPAWN = multiprocessing.get_context("spawn")
_PATIENCE_S = 30.0
_BATCH_S = 0.02


def train(folder: Path, begun: "Synchronized[int]") -> None:
    """Compute batches without a pause, counting each as it begins, until somebody ends the process."""
    window = QuietWindow(folder=folder)
    while True:
        with window.pace():
            begun.value += 1
            time.sleep(_BATCH_S)


def hold(folder: Path, act: str, held: Event) -> None:
    """Hold the window in one way or the other, and never let go."""
    window = QuietWindow(folder=folder)
    with window.measuring() if act == "measuring" else window.pace():
        held.set()
        time.sleep(3600)


@contextmanager
def processes(*starts: tuple[Callable[..., None], tuple[object, ...]]) -> Iterator[list[int]]:
    """Run functions in processes of their own, and end them."""
    started = [_SPAWN.Process(target=act, args=arguments, daemon=True) for act, arguments in starts]
    for process in started:
        process.start()
    try:
        yield [process.pid for process in started if process.pid is not None]
    finally:
        for process in started:
            process.kill()
            process.join()


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    end = time.monotonic() + _PATIENCE_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.001)


def after_a_batch_each(counts: list["Synchronized[int]"]) -> list[int]:
    """Wait until every worker has begun one more batch, and return how many each has begun."""
    earlier = [count.value for count in counts]
    until(lambda: all(count.value > before for count, before in zip(counts, earlier, strict=True)))
    return [count.value for count in counts]


def acquired(window: QuietWindow, act: str, patience_s: float) -> bool:
    """Tell whether the window can be had, in one way or the other, within some time."""
    had = threading.Event()

    def take() -> None:
        with window.measuring() if act == "measuring" else window.pace():
            had.set()

    threading.Thread(target=take, daemon=True).start()
    return had.wait(patience_s)


@pytest.mark.slow
def test_a_measurer_waits_for_no_more_than_the_batches_that_run(tmp_path: Path) -> None:
    """Two workers that loop without a pause begin at most two batches each after the request, none while it holds."""
    window = QuietWindow(folder=tmp_path)
    counts = [_SPAWN.Value("i", 0) for _ in range(2)]
    with processes(*((train, (tmp_path, count)) for count in counts)):
        for _ in range(5):
            requested = after_a_batch_each(counts)
            with window.measuring():
                held = [count.value for count in counts]
                time.sleep(3 * _BATCH_S)
                assert [count.value for count in counts] == held
            assert all(now - then <= 2 for now, then in zip(held, requested, strict=True))


@pytest.mark.parametrize("act", ["measuring", "pace"])
def test_a_child_that_outlives_a_batch_does_not_keep_the_window(tmp_path: Path, act: str) -> None:
    """What was forked while the window was held, as the workers of a data loader are, has its files, not its lock."""
    window = QuietWindow(folder=tmp_path)
    with window.measuring() if act == "measuring" else window.pace():
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(3600,), daemon=True)
        child.start()
    try:
        other = _SPAWN.Event()
        with processes((hold, (tmp_path, "measuring", other))):
            assert other.wait(_PATIENCE_S)
        assert child.is_alive()
    finally:
        child.kill()
        child.join()


@pytest.mark.slow
@pytest.mark.parametrize("act", ["pace", "measuring"])
def test_a_killed_holder_lets_go(tmp_path: Path, act: str) -> None:
    """After kill -9 of who holds the window, others get it."""
    held = _SPAWN.Event()
    with processes((hold, (tmp_path, act, held))) as (holder,):
        assert held.wait(_PATIENCE_S)
        assert not acquired(QuietWindow(folder=tmp_path), "measuring", 0.1)
        os.kill(holder, signal.SIGKILL)
        assert acquired(QuietWindow(folder=tmp_path), "measuring", _PATIENCE_S)


def test_two_measurers_exclude_one_another(tmp_path: Path) -> None:
    """While one measures no other does, not even a thread of the same process."""
    window = QuietWindow(folder=tmp_path)
    with window.measuring():
        assert not acquired(window, "measuring", 0.05)
    assert acquired(window, "measuring", _PATIENCE_S)


def test_batches_run_side_by_side(tmp_path: Path) -> None:
    """Workers do not wait for one another, and none begins a batch while somebody measures."""
    window = QuietWindow(folder=tmp_path)
    with window.pace():
        assert acquired(window, "pace", _PATIENCE_S)
    with window.measuring():
        assert not acquired(window, "pace", 0.05)


def test_a_measurer_that_waits_comes_before_the_next_batch(tmp_path: Path) -> None:
    """While a batch still runs, who waits to measure keeps further batches from beginning."""
    window = QuietWindow(folder=tmp_path)
    with window.pace():
        assert not acquired(window, "measuring", 0.05)
        assert not acquired(window, "pace", 0.05)
    assert acquired(window, "pace", _PATIENCE_S)


def test_an_error_lets_go(tmp_path: Path) -> None:
    """An exception in a batch or in a measurement ends its hold."""
    window = QuietWindow(folder=tmp_path)
    for act in (window.pace, window.measuring):
        with pytest.raises(ValueError, match="on purpose"), act():
            raise ValueError("on purpose")
    assert acquired(window, "measuring", _PATIENCE_S)


def test_who_computes_already_goes_on(tmp_path: Path) -> None:
    """A batch within a stage of the same thread does not wait for a measurer who waits for that stage."""
    window = QuietWindow(folder=tmp_path)

    def nested() -> None:
        with window.pace():
            assert not acquired(window, "measuring", 0.05)
            with window.pace():
                pass

    assert in_time(nested)
    assert acquired(window, "measuring", _PATIENCE_S)


def test_who_computes_can_measure(tmp_path: Path) -> None:
    """Within a stage its thread measures alone, whoever else asks, and computes on after it; so do two at once."""
    window, both = QuietWindow(folder=tmp_path), threading.Barrier(2)
    told: list[bool] = []

    def stage() -> None:
        with window.pace():
            both.wait(_PATIENCE_S)
            with window.measuring(), window.measuring(), window.pace():
                told.append(acquired(window, "pace", 0.05))
                told.append(acquired(window, "measuring", 0.05))
            told.append(acquired(window, "measuring", 0.05))

    threads = [threading.Thread(target=stage, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_PATIENCE_S)
    assert told == [False] * 6
    assert acquired(window, "measuring", _PATIENCE_S)


def test_who_pauses_lets_others_measure(tmp_path: Path) -> None:
    """Within a stage there can be a pause in which others measure; after it the stage computes on."""
    window = QuietWindow(folder=tmp_path)

    def stage() -> None:
        with window.pace():
            with window.pausing():
                assert acquired(window, "measuring", _PATIENCE_S)
                with window.pace():
                    assert not acquired(window, "measuring", 0.05)
            assert not acquired(window, "measuring", 0.05)

    assert in_time(stage)
    assert acquired(window, "measuring", _PATIENCE_S)


def in_time(act: Callable[[], None]) -> bool:
    """Tell whether something that may wait for ever ends."""
    ended = threading.Event()

    def run() -> None:
        act()
        ended.set()

    threading.Thread(target=run, daemon=True).start()
    return ended.wait(_PATIENCE_S)


def test_all_processes_of_a_user_share_a_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a process works on, its locks are in one folder of the machine that nobody else can write to."""
    monkeypatch.setattr(quiet, "_temporary", lambda: tmp_path)
    window = window_of_machine()
    assert window == window_of_machine()
    (folder,) = tmp_path.iterdir()
    assert folder.name == f"beats-search-quiet-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    with window.measuring():
        assert not acquired(window_of_machine(), "pace", 0.05)


@pytest.mark.parametrize("obstacle", ["link", "open to all", "file", "nowhere", "another user's"])
def test_a_folder_of_others_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obstacle: str) -> None:
    """Where somebody else has the folder, or there can be none, nobody waits, and nothing is written there."""
    folder = tmp_path / f"beats-search-quiet-{os.getuid()}"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(quiet, "_temporary", lambda: elsewhere / "gone" if obstacle == "nowhere" else tmp_path)
    match obstacle:
        case "link":
            folder.symlink_to(elsewhere)
        case "open to all":
            folder.mkdir()
            folder.chmod(0o777)
        case "file":
            folder.write_text("")
        case "another user's":
            (tmp_path / f"beats-search-quiet-{os.getuid() + 1}").mkdir()
            monkeypatch.setattr(quiet, "_user", lambda: os.getuid() + 1)
    assert window_of_machine() == QuietWindow()
    assert not list(elsewhere.iterdir())


def test_alone_nobody_waits() -> None:
    """Without a folder both acts are free."""
    window = QuietWindow()
    with window.measuring(), window.pace(), window.pausing():
        assert acquired(window, "measuring", _PATIENCE_S)


def test_a_batch_costs_little(tmp_path: Path) -> None:
    """Taking and letting go of the window takes far less than a batch."""
    window = QuietWindow(folder=tmp_path)
    costs = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(100):
            with window.pace():
                pass
        costs.append((time.perf_counter() - began) / 100)
    assert min(costs) < 0.0005


class Watched(QuietWindow):
    """A window in which nobody waits, and that remembers who came and what is held."""

    came: ClassVar[list[str]] = []
    held: ClassVar[list[str]] = []

    @contextmanager
    def pace(self) -> Iterator[None]:
        """Note a batch or a stage, and its end."""
        self.came.append("pace")
        self.held.append("pace")
        yield
        self.held.pop()

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Note a measurement, and its end."""
        self.came.append("measuring")
        yield
        self.came.append("measured")

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """Hold nothing for a while."""
        before = self.held[:]
        self.held.clear()
        yield
        self.held.extend(before)


PRUNING = Part(name="channel_pruning", settings=(("ratio", 0.5), ("round_to", 8), ("recovery_epochs", 1)))
PLAN = TrialPlan(
    dataset=Part(name="toys:stripes"),
    model=Part(name="toys:net", settings=(("width", 16),)),
    training=TrainingPlan(epochs=1, batch_size=20),
    compression=(PRUNING,),
)


def watch(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[int]]:
    """Return how many holds there were, by what was called, whenever one of these is called from here on."""
    seen: dict[str, set[int]] = {}

    def noting(owner: object, name: str) -> None:
        act = getattr(owner, name)

        def noted(*given: object, **named: object) -> object:
            seen.setdefault(name, set()).add(len(Watched.held))
            return act(*given, **named)

        monkeypatch.setattr(owner, name, noted)

    Watched.came.clear()
    for owner, name in (
        (ChannelPruning, "apply"), (OnnxRuntime, "deploy"), (OnnxRuntimeEngine, "logits"), (recipe, "fit"),
        (trial_run, "fit"), (trial_run, "measure_latency"), (probing, "measure_latency"),
    ):  # fmt: skip
        noting(owner, name)
    return seen


@pytest.mark.slow
@pytest.mark.usefixtures("toys_importable")
def test_a_trial_computes_and_measures_through_the_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All batches, compression, export and evaluation pass the window; trainings begin outside; timing has it alone."""
    engine = deploy_untrained(replace(PLAN, compression=()), tmp_path / "reference.onnx")
    seen = watch(monkeypatch)
    paired, instruments = Reference(open=engine.open), Instruments(window=Watched())
    outcome = run_trial(PLAN, tmp_path / "models" / "1", paired, instruments=instruments)
    assert isinstance(outcome, Finished), outcome
    assert seen == {"fit": {0}, "apply": {1}, "deploy": {1}, "logits": {1}, "measure_latency": {0}}
    assert Watched.came[-2:] == ["measuring", "measured"]
    stages = Watched.came[:-2]
    assert set(stages) == {"pace"}
    assert len(stages) >= 2 * (80 // 20 + 1)  # two trainings of 80 inputs, each with a validation


@pytest.mark.slow
@pytest.mark.usefixtures("toys_importable")
def test_check_and_the_last_evaluation_pass_the_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`check` exports and measures like a run; confirming and testing a model compute as its trial did."""
    monkeypatch.setattr(quiet, "window_of_machine", Watched)
    seen = watch(monkeypatch)
    assert call("check", write(tmp_path)).exit_code == 0
    assert seen["deploy"] == {1}
    assert "measuring" in Watched.came
    confirm(PLAN, 1, Watched())
    engine = deploy_untrained(PLAN, tmp_path / "model.onnx", Watched())
    trial_run.test_accuracy(PLAN, engine.path, Watched())
    assert (seen["apply"], seen["deploy"], seen["logits"]) == ({1}, {1}, {1})
