"""Trials on Ray Tune: the plans of a search without it, through actors that die, with the models sent back."""

import os
import signal
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Timer

import pytest
import ray
from ray.cluster_utils import Cluster
from search_toy import Trials, budget, new_ledger, outcome_of, plans_of, problem, sit, space
from worker_toys import Toys, learned

from beats_search.app.working import keep_model
from beats_search.records.errors import CommandError
from beats_search.records.event import Began, Event, Reclaimed
from beats_search.records.outcome import Failed, Stopped, TrialOutcome
from beats_search.search.attempt import KeepGoing
from beats_search.search.backends.local import Try
from beats_search.search.backends.ray_tune import Keep, RayTune, _Desk
from beats_search.search.crew import Job
from beats_search.search.domain import domain_of
from beats_search.search.folder import model_file
from beats_search.search.reading import read_run
from beats_search.search.sitting import Ending
from beats_search.search.stopping import Stopping
from beats_search.search.study import search

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class There:
    """Opens toys in a process of the cluster; each trial leaves a file that says its number."""

    toys: Toys

    def __call__(self, keep: Keep) -> Try:
        """Return what tries plans there."""
        try_plan = self.toys()

        def try_and_send(job: Job, keep_going: KeepGoing) -> TrialOutcome:
            outcome = try_plan(job, keep_going)
            node = ray.get_runtime_context().get_node_id()
            (self.toys.folder / f"{job.number}.node").write_text(node, encoding="ascii")
            keep(job.number, "model.onnx", str(job.number).encode())
            return outcome

        return try_and_send


def on_ray(folder: Path, toys: Toys, workers: int | None, address: str = "", target: str = "") -> RayTune:
    """Return what runs toys on a cluster of this machine."""
    return RayTune(
        open_trials=There(toys=toys),
        keep=partial(keep_model, folder),
        resources={"CPU": 0.5},
        workers=workers,
        address=address,
        target=target,
    )


def test_one_worker_tries_the_plans_that_this_process_would(tmp_path: Path) -> None:
    """An actor that dies costs one attempt; plans, numbers and outcomes are those of a search without Ray."""
    path, events = tmp_path / "study.db", list[Event]()
    toys = Toys(folder=tmp_path, instead={2: "die once", 4: "score"})
    with new_ledger(path) as ledger:
        search(problem(Trials()), ledger, budget(6), events.append, drive=on_ray(tmp_path, toys, 1))
    sit(tmp_path / "alone.db", budget(6))
    found = read_run(path)
    assert [trial.number for trial in found.trials] == list(range(6))
    assert [trial.plan for trial in found.trials] == plans_of(tmp_path / "alone.db")
    assert [trial.outcome for trial in found.trials] == [outcome_of(trial.plan) for trial in found.trials]
    assert [toys.begun(number) for number in range(6)] == [1, 1, 2, 1, 1, 1]
    assert [event.number for event in events if isinstance(event, Reclaimed)] == [2]
    assert [model_file(tmp_path, number).read_text(encoding="ascii") for number in range(6)] == list("012345")


def test_trials_on_the_cluster_are_stopped_as_they_would_be_here(tmp_path: Path) -> None:
    """Judged where they run, beside the run as it stands then, the same trials are stopped after the same epochs."""
    strict = Stopping(delta=0.2, fewest=3, spared=0.0)
    alone, there = tmp_path / "alone.db", tmp_path / "there.db"
    foreseen = replace(
        problem(lambda _, plan, keep_going: learned(plan, keep_going)),
        domain=domain_of(space(epochs=8)),
        known=lambda plan: {"latency_ms": float(str(plan.model["width"])) / 8},
        stopping=strict,
    )
    with new_ledger(alone) as ledger:
        search(foreseen, ledger, budget(24, "sobol"))
    with new_ledger(there) as ledger:
        drive = replace(on_ray(tmp_path, Toys(folder=tmp_path, always="learn"), 1), stopping=strict)
        search(foreseen, ledger, budget(24, "sobol"), drive=drive)
    outcomes = [trial.outcome for trial in read_run(there).trials]
    assert outcomes == [trial.outcome for trial in read_run(alone).trials]
    judged = [outcome for outcome in outcomes if isinstance(outcome, Stopped) and outcome.expected is not None]
    assert len(judged) >= 3
    assert any(outcome.epoch < 8 for outcome in judged)
    assert all(outcome.epoch == len(outcome.curve) for outcome in judged)


def test_ctrl_c_ends_a_search_on_the_cluster(tmp_path: Path) -> None:
    """While trials are awaited the signal ends the search as an interruption; the same search then goes on."""
    path = tmp_path / "study.db"

    def press(event: Event) -> None:
        if isinstance(event, Began) and event.number == 3:
            Timer(0.5, os.kill, [os.getpid(), signal.SIGINT]).start()

    toys = Toys(folder=tmp_path, instead={3: "hang"})
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore Ctrl-C
    try:
        with new_ledger(path) as ledger:
            ending = search(problem(Trials()), ledger, budget(6), press, drive=on_ray(tmp_path, toys, 1))
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert ending is Ending.INTERRUPTED
    assert [trial.number for trial in read_run(path).trials] == [0, 1, 2]
    sit(path, budget(6))
    assert [trial.number for trial in read_run(path).trials] == list(range(6))


def test_a_trial_that_takes_too_long_has_failed_on_the_cluster(tmp_path: Path) -> None:
    """Its actor is killed, it is not tried again, and the next trials run in another."""
    toys = Toys(folder=tmp_path, instead={1: "hang"})
    with new_ledger(tmp_path / "study.db") as ledger:
        drive = replace(on_ray(tmp_path, toys, 1), trial_timeout=1.0)
        search(problem(Trials()), ledger, budget(4), drive=drive)
    trials = read_run(tmp_path / "study.db").trials
    assert trials[1].outcome == Failed(stage="timeout", reason="took longer than search.trial_timeout, 1 s")
    assert [trial.outcome for trial in trials[2:]] == [outcome_of(trial.plan) for trial in trials[2:]]
    assert [toys.begun(number) for number in range(4)] == [1, 1, 1, 1]


def test_the_clock_of_an_attempt_is_not_that_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """An actor that died told nobody: its clock ends with the next attempt, which has all of its own time."""
    killed: list[str] = []
    monkeypatch.setattr(ray, "kill", killed.append)
    desk = _Desk(lambda *_: None, 0.4)
    desk.began(5, "first")
    time.sleep(0.25)
    desk.began(5, "second")
    time.sleep(0.25)
    assert not killed
    assert not desk.was_overdue(5)
    time.sleep(0.3)
    assert killed == ["second"]
    assert desk.was_overdue(5)
    desk.began(6, "third")
    desk.ended(6)
    time.sleep(0.5)
    assert killed == ["second"]


@pytest.mark.parametrize(("told", "resources", "address"), [
    ("search.resources: no trial fits .* GPU 3", {"CPU": 0.5, "GPU": 3.0}, ""),
    ("search.ray.address 'head'", {"CPU": 0.5}, "head"),
])  # fmt: skip
def test_a_cluster_that_can_run_nothing_is_told(
    told: str, resources: dict[str, float], address: str, tmp_path: Path
) -> None:
    """More than this machine has, and an address that is none."""
    drive = replace(on_ray(tmp_path, Toys(folder=tmp_path), 2, address=address), resources=resources)
    with new_ledger(tmp_path / "study.db") as ledger, pytest.raises(CommandError, match=told):
        search(problem(Trials()), ledger, budget(6), drive=drive)


def test_a_bug_ends_the_search_as_itself(tmp_path: Path) -> None:
    """What is raised in an actor is raised by the search, and its plan comes again."""
    path, toys = tmp_path / "study.db", Toys(folder=tmp_path, instead={2: "bug"})
    with new_ledger(path) as ledger, pytest.raises(RuntimeError, match="ZeroDivisionError"):
        search(problem(Trials()), ledger, budget(6), drive=on_ray(tmp_path, toys, 2))
    sit(path, budget(4))
    assert [trial.number for trial in read_run(path).trials] == list(range(4))


def test_a_cluster_that_is_not_there_is_told(tmp_path: Path) -> None:
    """The message names the key and the address."""
    with new_ledger(tmp_path / "study.db") as ledger, pytest.raises(CommandError, match=r"search\.ray\.address 'auto'"):
        search(problem(Trials()), ledger, budget(6), drive=on_ray(tmp_path, Toys(folder=tmp_path), 1, address="auto"))


def test_trials_run_on_the_nodes_of_the_target_alone(tmp_path: Path) -> None:
    """A node with another label, or none, is left alone; without any that fits, the message says how to get one."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        meant = cluster.add_node(num_cpus=1, labels={"beats-search-target": "board"})
        with new_ledger(tmp_path / "study.db") as ledger:
            drive = on_ray(tmp_path, Toys(folder=tmp_path), None, cluster.address, "board")
            search(problem(Trials()), ledger, budget(4), drive=drive)
        ran_on = {path.read_text(encoding="ascii") for path in tmp_path.glob("*.node")}
        assert ran_on == {meant.node_id}
        elsewhere = on_ray(tmp_path, Toys(folder=tmp_path), None, cluster.address, "phone")
        told = pytest.raises(CommandError, match=r"no node .* beats-search-target=phone")
        with new_ledger(tmp_path / "other.db") as ledger, told:
            search(problem(Trials()), ledger, budget(4), drive=elsewhere)
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call] # has no types


def test_a_node_that_dies_loses_no_trial(tmp_path: Path) -> None:
    """Of two nodes one is killed on the way: what it was at comes again under its number, and the search ends."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    other = cluster.add_node(num_cpus=1)
    path, begun = tmp_path / "study.db", list[Event]()

    def kill(event: Event) -> None:
        begun.append(event)
        if isinstance(event, Began) and event.number == 8:
            cluster.remove_node(other, allow_graceful=False)

    try:
        toys = Toys(folder=tmp_path, always="slow")
        with new_ledger(path) as ledger:
            plan = replace(budget(16, "sobol"), retries=3)
            search(problem(Trials()), ledger, plan, kill, drive=on_ray(tmp_path, toys, 4, address=cluster.address))
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call] # has no types
    found = read_run(path)
    assert len({trial.plan.fingerprint() for trial in found.trials}) == len(found.trials) == 16
    assert [trial.outcome for trial in found.trials] == [outcome_of(trial.plan) for trial in found.trials]
    assert sum(isinstance(event, Reclaimed) for event in begun) <= 4
