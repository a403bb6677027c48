"""Compression: two data sets in, accuracy against latency of every way to compress one network out, side by side.

    python tests/benchmarks/compression.py [train] [legs] [timing] [swap] [--data FOLDER] [--work FOLDER]

`resnet` with 32, 64 and 128 channels on MNIST and on CIFAR-10 (JPEG), three seeds each: trained once in
fp32, then compressed: by onnxruntime's `quantize_static`, by NNCF on OpenVINO, and by this project
(after training and quantization-aware at 8, 4, 3 and 2 bits, and pruned). Every file's accuracy is
measured on its runtime. Then all files of one network are timed side by side in random order, at batch
1 and 32 on one thread, against the uncompressed network on onnxruntime. At last, how long the export of
a second network of the same structure takes.

Each step keeps its result in the folder `--work` and is not made again. The result is
`reports/benchmarks/compression.json`: `{"schema": 1, "machine", "legs": [{"dataset", "seed", "leg",
"runtime", "executed_as", "size_kb", "validation", "test", "ratio": {"1": [ratio, low, high], "32": …}}],
"reference_ms": {"mnist": {"1": [of each seed], "32": …}, …}, "swap": {"mnist": …}}`; a ratio is the time
of a call to that of the reference's.
"""

import argparse
import json
import shlex
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import torch

from beats_search.measuring.blocks import Protocol
from beats_search.measuring.latency import measure_together
from beats_search.measuring.machine import describe_machine
from compression_legs import RUNTIMES, Case, legs, run
from compression_networks import WIDTH, dense, load, plan_of
from compression_summary import summary
from compression_swap import in_words, swaps

_REPOSITORY: Final = Path(__file__).resolve().parents[2]
_BATCHES: Final = (1, 32)
_DATASETS: Final = ("mnist", "cifar10")
_STEPS: Final = ("train", "legs", "timing", "swap")


def main(arguments: Sequence[str]) -> None:
    """Do the steps that are asked for, and write what is known."""
    asked = _parser().parse_args(arguments)
    torch.set_num_threads(asked.threads)
    for dataset, seed in ((dataset, seed) for seed in asked.seeds for dataset in asked.datasets):
        model = dense(dataset, seed, asked.data, asked.work)
        folder = asked.work / f"{dataset}-{seed}-{WIDTH}"
        case = Case(plan=plan_of(dataset, seed), data=load(dataset, asked.data), model=model, folder=folder)
        print(f"{dataset}, seed {seed}", flush=True)
        if "legs" in asked.steps:
            for leg in legs(dataset):
                told = run(case, leg)
                for name, facts in told["files"].items():
                    share = f"{facts['validation']:.4f} {facts['test']:.4f}"
                    print(f"  {leg.name:20} {name:12} {facts['executed_as']:6} {share}", flush=True)
        if "timing" in asked.steps:
            _time(case, asked.budget)
        if "swap" in asked.steps and seed == asked.seeds[0]:
            record = asked.work / f"swap-{dataset}.json"
            record.write_text(json.dumps(swaps(model, case.data)))
            print(in_words(dataset, json.loads(record.read_text())), flush=True)
    _write(asked)


def _time(case: Case, budget_s: float) -> None:
    """Time all files of a case side by side and keep the ratios."""
    for batch in _BATCHES:
        record = case.folder / f"timing-{batch}.json"
        if record.exists():
            continue
        engines = {
            f"{told['leg']}|{name}": RUNTIMES[name](batch).load(case.folder / facts["path"])
            for told in _records(case.folder)
            for name, facts in told["files"].items()
        }
        reference = engines.pop("fp32|onnxruntime")
        timed = measure_together(
            [engine.open for engine in engines.values()], reference.open, protocol=Protocol(budget_s=budget_s)
        )
        ratios = {
            key: [latency.ratio, latency.ratio_interval.low, latency.ratio_interval.high]
            for key, latency in zip(engines, timed, strict=True)
        }
        reference_ms = timed[0].median_ms / timed[0].ratio
        record.write_text(json.dumps({"reference_ms": reference_ms, "ratios": ratios}, indent=1))


def _records(folder: Path) -> Iterator[Any]:
    for file in sorted(folder.glob("*.json")):
        told = json.loads(file.read_text())
        if "leg" in told:
            yield told


def _write(asked: argparse.Namespace) -> None:
    found = []
    reference_ms: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for dataset, seed in ((dataset, seed) for dataset in asked.datasets for seed in asked.seeds):
        folder = asked.work / f"{dataset}-{seed}-{WIDTH}"
        timings = {
            batch: json.loads(file.read_text())
            for batch in _BATCHES
            if (file := folder / f"timing-{batch}.json").exists()
        }
        for batch, timing in timings.items():
            reference_ms[dataset][str(batch)].append(timing["reference_ms"])
        for told in _records(folder):
            for name, facts in told["files"].items():
                key = f"{told['leg']}|{name}"
                ratio = {str(batch): timing["ratios"].get(key, [1.0, 1.0, 1.0]) for batch, timing in timings.items()}
                row = {"dataset": dataset, "seed": seed, "leg": told["leg"], "runtime": name, "ratio": ratio}
                found.append({**row, **{each: value for each, value in facts.items() if each != "path"}})
    asked.out.write_text(
        json.dumps(
            {
                "schema": 1,
                "date": datetime.now(UTC).date().isoformat(),
                "command": shlex.join(
                    ["python", "tests/benchmarks/compression.py", *asked.steps, "--datasets", *asked.datasets]
                ),
                "machine": dict(describe_machine()),
                "legs": found,
                "reference_ms": reference_ms,
                "swap": {
                    dataset: json.loads(file.read_text())
                    for dataset in asked.datasets
                    if (file := asked.work / f"swap-{dataset}.json").exists()
                },
            },
            indent=1,
        )
    )
    print(summary(found))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("steps", nargs="*", default=list(_STEPS), help=", ".join(_STEPS))
    parser.add_argument("--data", type=Path, default=_REPOSITORY.parent / "shared" / "data", help="MNIST and CIFAR-10")
    parser.add_argument("--work", type=Path, default=_REPOSITORY / "reports" / "compression", help="what is kept")
    parser.add_argument("--out", type=Path, default=_REPOSITORY / "reports" / "benchmarks" / "compression.json")
    parser.add_argument("--datasets", nargs="+", default=list(_DATASETS), choices=_DATASETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1, help="for training")
    parser.add_argument("--budget", type=float, default=3.0, help="seconds of timing per file")
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
