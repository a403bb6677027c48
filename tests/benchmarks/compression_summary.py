"""Summary: the results of the compression benchmark in, a table of all ways and what is asked of ours out.

Losses are in points of test accuracy against fp32 on onnxruntime with the same seed; speeds are how many
times as fast as that a call is. All are medians over the seeds, the range in brackets. Which of our
files is meant by "at most 1 point lost" is decided on validation accuracy, and told with test accuracy.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, Final, TypeAlias

Rows: TypeAlias = Sequence[Mapping[str, Any]]

REFERENCE: Final = ("fp32", "onnxruntime")
ALLOWED_POINTS: Final = 1.0
QAT_POINTS: Final = {"mnist": 1.0, "cifar10": 2.5}
_PTQ_ALONE: Final = (("quantize_static", "onnxruntime"), ("nncf", "openvino"))
_BASELINES: Final = ("fp32", "quantize_static", "nncf")


def summary(rows: Rows) -> str:
    """Return everything that is known as text."""
    datasets = sorted({row["dataset"] for row in rows})
    return "\n\n".join(_of_dataset([row for row in rows if row["dataset"] == dataset], dataset) for dataset in datasets)


def _of_dataset(rows: Rows, dataset: str) -> str:
    keys = list(dict.fromkeys((row["leg"], row["runtime"]) for row in rows))
    seeds = len({row["seed"] for row in rows})
    head = f"{'way':30}{'runtime':14}{'runs as':9}{'kB':>7}{'test %':>9}{'points lost':>22}"
    lines = [f"{dataset}, n = {seeds} seeds", head + f"{'faster, batch 1':>22}{'faster, batch 32':>22}"]
    lines += [_line(rows, key) for key in keys]
    return "\n".join([*lines, "", *_goals(rows, dataset, keys)])


def _line(rows: Rows, key: tuple[str, str]) -> str:
    own = _of(rows, key)
    executed = "/".join(sorted({row["executed_as"] for row in own}))
    size, share = median(row["size_kb"] for row in own), 100 * median(row["test"] for row in own)
    told = "".join(f"{_spread(_speeds(rows, key, batch)):>22}" for batch in ("1", "32"))
    return f"{key[0]:30}{key[1]:14}{executed:9}{size:7.0f}{share:9.2f}{_spread(_losses(rows, key)):>22}{told}"


def _goals(rows: Rows, dataset: str, keys: Sequence[tuple[str, str]]) -> list[str]:
    told = []
    for batch in ("1", "32"):
        near = [
            key
            for key in keys
            if key[0] not in _BASELINES and median(_losses(rows, key, "validation")) <= ALLOWED_POINTS
        ]
        timed = [key for key in near if _speeds(rows, key, batch)]
        if timed:
            best = max(timed, key=lambda key: median(_speeds(rows, key, batch)))
            told.append(_best_in_words(rows, best, batch))
    for bits in (4, 3, 2):
        losses = {mode: _losses(rows, (f"{mode} {bits}", "onnxruntime")) for mode in ("qat", "ptq")}
        if losses["qat"]:
            limit = QAT_POINTS[dataset]
            told.append(
                f"QAT at {bits} bits loses {_spread(losses['qat'])} points (asked: at most {limit}), "
                f"PTQ {_spread(losses['ptq'])}"
            )
    return told + _same_speed(rows, keys)


def _best_in_words(rows: Rows, best: tuple[str, str], batch: str) -> str:
    """Say what the fastest of our files that keeps its accuracy gains."""
    own = _speeds(rows, best, batch)
    against = ", ".join(
        f"{_spread(_by_seed(rows, best, key, batch, lambda one, other: other / one))} that of {key[0]}"
        for key in _PTQ_ALONE
        if _speeds(rows, key, batch)
    )
    return (
        f"batch {batch}: fastest with at most {ALLOWED_POINTS} point lost: {' on '.join(best)}: "
        f"{_spread(own)} times the speed of fp32 (asked: 4), {against} (asked: 1.5), "
        f"{_spread(_losses(rows, best))} points lost on test images"
    )


def _same_speed(rows: Rows, keys: Sequence[tuple[str, str]]) -> list[str]:
    told = []
    for leg, runtime in keys:
        ptq = (leg.replace("qat", "ptq"), runtime)
        if leg.startswith("qat") and ptq in keys and _speeds(rows, ptq, "1"):
            ratios = [
                _spread(_by_seed(rows, (leg, runtime), ptq, batch, lambda one, other: one / other))
                for batch in ("1", "32")
            ]
            told.append(
                f"{leg} on {runtime} takes {ratios[0]} (batch 1) and {ratios[1]} (batch 32) of the PTQ file's time"
            )
    return told


def _by_seed(
    rows: Rows, one: tuple[str, str], other: tuple[str, str], batch: str, joined: Callable[[float, float], float]
) -> list[float]:
    """Return what `joined` makes of two files' times, seed by seed; each was timed against the same reference."""
    times = [
        {row["seed"]: row["ratio"][batch][0] for row in _of(rows, key) if batch in row["ratio"]} for key in (one, other)
    ]
    return [joined(times[0][seed], times[1][seed]) for seed in sorted(times[0].keys() & times[1].keys())]


def _losses(rows: Rows, key: tuple[str, str], split: str = "test") -> list[float]:
    reference = {row["seed"]: row[split] for row in _of(rows, REFERENCE)}
    return [100 * (reference[row["seed"]] - row[split]) for row in _of(rows, key) if row["seed"] in reference]


def _speeds(rows: Rows, key: tuple[str, str], batch: str) -> list[float]:
    return [1 / row["ratio"][batch][0] for row in _of(rows, key) if batch in row["ratio"]]


def _of(rows: Rows, key: tuple[str, str]) -> Rows:
    return [row for row in rows if (row["leg"], row["runtime"]) == key]


def _spread(values: Sequence[float]) -> str:
    """Return the median and the range; a dash where nothing was measured."""
    return f"{median(values):.2f} ({min(values):.2f}..{max(values):.2f})" if values else "-"
