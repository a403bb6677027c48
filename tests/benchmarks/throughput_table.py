"""Table: summaries in, the lines that a person reads out."""

from collections.abc import Iterator, Sequence

from throughput_summary import AccuracyCheck, Spread, Summary

_HEADINGS = ("model", "contestant", "n", "training images/s", "ratio", "with validation", "ratio", "accuracy", "MB")


def table(summaries: Sequence[Summary], baseline_mb: float) -> str:
    """Return a line per summary: medians with the extremes over rounds, aligned."""
    rows = [_HEADINGS, *(_row(summary) for summary in summaries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    notes = (
        f"MB: peak memory over the {baseline_mb:.0f} MB of importing torch and reading the data, + its largest worker"
    )
    return "\n".join([*lines, "", *_remarks(summaries), notes])


def _row(summary: Summary) -> tuple[str, ...]:
    workers = f" + {summary.worker_peak_mb:.0f}" if summary.worker_peak_mb else ""
    return (
        summary.model,
        summary.contestant,
        str(summary.training_ratio.n),
        _rates(summary.training_images_per_second),
        _ratios(summary.training_ratio),
        _rates(summary.whole_images_per_second),
        _ratios(summary.whole_ratio),
        f"{summary.accuracy.mean:.4f}",
        f"{summary.peak_over_baseline_mb:.0f}{workers}",
    )


def _rates(rates: Spread) -> str:
    return f"{rates.median:,.0f} ({rates.low:,.0f}..{rates.high:,.0f})"


def _ratios(ratios: Spread) -> str:
    return f"{ratios.median:.2f} ({ratios.low:.2f}..{ratios.high:.2f})"


def _remarks(summaries: Sequence[Summary]) -> Iterator[str]:
    for model in dict.fromkeys(summary.model for summary in summaries):
        for kind in ("source", "lightning", "ours"):
            own = [one for one in summaries if one.model == model and one.contestant.partition("_")[0] == kind]
            if own:
                best = max(own, key=lambda one: one.training_ratio.median)
                yield f"{model}: the fastest {kind} is {best.contestant}, {best.training_ratio.median:.2f} times source"
    for summary in summaries:
        if summary.contestant != "source":
            yield f"{summary.model} {summary.contestant}: {_verdict(summary.accuracy)}"


def _verdict(check: AccuracyCheck) -> str:
    difference = f"accuracy {check.mean_difference:+.4f} against source"
    if check.noise is None:
        return f"{difference}; a single round has no spread to judge it by"
    relation = "within" if check.within_noise else "MORE THAN"
    return f"{difference}, {relation} the spread over rounds of {check.noise:.4f}"
