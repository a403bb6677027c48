"""Contestants: a task in, what one way of training reached out. The main program of a process of its own."""

import gc
import hashlib
import json
import resource
import sys
from collections.abc import Callable
from typing import assert_never

import torch
from torch import nn

from beats_search.records.plain import from_plain, to_plain
from throughput_networks import as_in_the_texts, build
from throughput_records import (
    BASELINE,
    CONTESTANTS,
    Baseline,
    LightningLoop,
    Measurement,
    OurLoop,
    SourceLoop,
    Task,
)
from throughput_source import prepare_source, read_published
from throughput_stopwatch import Stopwatch


def main() -> None:
    """Take the measurement that the first argument, a `Task` as JSON, asks for; print it as the last line."""
    task = from_plain(Task, json.loads(sys.argv[1]))
    result = baseline(task) if task.contestant == BASELINE else measure(task)
    print(json.dumps(to_plain(result)))


def measure(task: Task) -> Measurement:
    """Train as the task says; return how long it took, how well it went, and the memory that it needed."""
    torch.set_num_threads(task.threads)
    network = build(task.model, task.seed)
    if not isinstance(CONTESTANTS[task.contestant], OurLoop):
        network = as_in_the_texts(task.model, network)
    initial = _fingerprint(network)
    train = _prepare(task)
    unrelated_mb = _peak_mb(resource.RUSAGE_CHILDREN)  # importing torch starts processes too
    watch = Stopwatch()
    accuracy = train(network, watch)
    watch.switch("training")
    gc.collect()  # ends the processes that loaded data: only then does their memory count
    workers_mb = _peak_mb(resource.RUSAGE_CHILDREN)
    return Measurement(
        task=task,
        training_seconds=watch.training,
        validation_seconds=watch.validation,
        accuracy=accuracy,
        initial=initial,
        peak_mb=_peak_mb(resource.RUSAGE_SELF),
        worker_peak_mb=workers_mb if workers_mb > unrelated_mb else 0.0,
    )


def baseline(task: Task) -> Baseline:
    """Read the data and train nothing; return the memory that this takes, and the machine."""
    read_published(task.folder)
    peak_mb = _peak_mb(resource.RUSAGE_SELF)
    from beats_search.measuring.machine import describe_machine  # its libraries would count as memory above

    return Baseline(peak_mb=peak_mb, machine=describe_machine())


def _prepare(task: Task) -> Callable[[nn.Module, Stopwatch], float]:
    """Import what the task's loop needs and nothing else, since all of it counts as its memory."""
    match CONTESTANTS[task.contestant]:
        case SourceLoop() as loop:
            return prepare_source(task, loop)
        case LightningLoop() as loop:
            from throughput_lightning import prepare_lightning

            return prepare_lightning(task, loop)
        case OurLoop() as loop:
            from throughput_ours import prepare_ours

            return prepare_ours(task, loop)
        case never:
            assert_never(never)


def _fingerprint(network: nn.Module) -> str:
    weights = b"".join(tensor.numpy().tobytes() for tensor in network.state_dict().values())
    return hashlib.sha256(weights).hexdigest()[:16]


def _peak_mb(who: int) -> float:
    """Return the largest resident memory of this process, or of the largest of its children, in 10⁶ bytes."""
    return resource.getrusage(who).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    main()
