"""Training throughput: MNIST in, images per second of this package, Lightning and the source texts' loop out.

    python tests/benchmarks/training_throughput.py --data ../shared/data

Two models (MLP 784-100-10; two convolutions of 32 and 64 channels with a dense layer of 128), Adam at
1e-3, batches of 64, validated on 10,000 images after every epoch by everybody's own customary loop.
The clock starts with the published uint8 images in memory and stops with the trained model; making
floats of them, normalizing, shuffling and batching are in it, reading the files and importing are not.
Within a round all begin with equal weights and see the images in the same order. Every measurement is
a process of its own, and the order of the contestants is drawn anew for every round.

The result, `reports/benchmarks/training_throughput.json`:
`{"schema": 1, "date", "command", "settings": Settings, "machine", "load_average",
"baseline_peak_mb", "contestants": {name: settings}, "summaries": [Summary], "measurements": [Measurement]}`,
with the records of `throughput_summary` and `throughput_records`. The training seconds of ours are all
of `fit` that is not validation. Memory is the largest resident size of a process; `baseline_peak_mb` is
that of one that imports torch and torchvision and reads the data. Linux only.
"""

import json
import os
import random
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, TypeVar

from beats_search.records.plain import Plain, from_plain, tagged, to_plain
from throughput_arguments import Request, Settings, read_request
from throughput_files import unpacked
from throughput_records import BASELINE, CONTESTANTS, Baseline, Measurement, Task
from throughput_summary import Summary, summarize
from throughput_table import table

_CHILD: Final = Path(__file__).with_name("throughput_contestants.py")
_BUSY: Final = 0.25
"""A load per core from which on other processes disturb the clocks."""

Result = TypeVar("Result", Baseline, Measurement)


def main(arguments: Sequence[str]) -> None:
    """Measure what the command line asks for; print a table and write the JSON file."""
    request = read_request(arguments)
    load = os.getloadavg()
    if load[0] >= _BUSY * (os.cpu_count() or 1):
        print(f"warning: the load average is {load[0]:.2f}; other processes will disturb these timings")
    with unpacked(request.files) as folder:
        tasks = list(tasks_of(request.settings, folder))
        baseline = _child(Baseline, replace(tasks[0], contestant=BASELINE))
        measured = [_measured(number, len(tasks), task) for number, task in enumerate(tasks, start=1)]
    summaries = summarize(measured, baseline.peak_mb)
    print(table(summaries, baseline.peak_mb))
    result = _result(request, load, baseline, summaries, measured)
    request.out.parent.mkdir(parents=True, exist_ok=True)
    request.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written to {request.out}")


def tasks_of(settings: Settings, folder: Path) -> Iterator[Task]:
    """Return all tasks, round by round; a round has one seed, and an order of its own."""
    shuffler = random.Random(settings.seed)
    for number in range(settings.rounds):
        contests = [(model, name) for model in settings.models for name in settings.contestants]
        shuffler.shuffle(contests)
        for model, contestant in contests:
            yield Task(
                contestant=contestant,
                model=model,
                seed=settings.seed + number,
                epochs=settings.epochs,
                images=settings.images,
                threads=settings.threads,
                folder=str(folder),
            )


def _measured(number: int, count: int, task: Task) -> Measurement:
    print(f"{number}/{count} {task.model} {task.contestant}, seed {task.seed}", file=sys.stderr, flush=True)
    return _child(Measurement, task)


def _child(kind: type[Result], task: Task) -> Result:
    """Return what a process of its own found, so that threads, memory and allocators begin anew."""
    environment = os.environ | {"OMP_NUM_THREADS": str(task.threads)}
    command = [sys.executable, str(_CHILD), json.dumps(to_plain(task))]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{task.contestant} failed with {task.model}, exit code {ended.returncode}:\n{ended.stderr}")
    return from_plain(kind, json.loads(ended.stdout.splitlines()[-1]))


def _result(
    request: Request,
    load: Sequence[float],
    baseline: Baseline,
    summaries: Sequence[Summary],
    measured: Sequence[Measurement],
) -> Plain:
    settings = request.settings
    return {
        "schema": 1,
        "date": request.day.isoformat(),
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "settings": to_plain(settings),
        "machine": {**baseline.machine, "lightning": _lightning()},
        "load_average": list(load),
        "baseline_peak_mb": baseline.peak_mb,
        "contestants": {name: tagged(CONTESTANTS[name]) for name in settings.contestants},
        "summaries": to_plain(summaries),
        "measurements": to_plain(measured),
    }


def _lightning() -> str:
    try:
        return version("lightning")
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main(sys.argv[1:])
