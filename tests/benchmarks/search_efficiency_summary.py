"""Summary: courses of one sampler on one problem in, medians with their spread over seeds out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Final

from search_efficiency_courses import Course

TARGETS: Final = (0.9, 0.95, 0.98, 0.99)
MARKS: Final = (20, 40, 60, 80)
QUERY_COST: Final = 0.1
"""Of an evaluation, for a query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Median and quartiles; None is beyond the limit."""

    median: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What one sampler did on one problem.

    `evaluations` until shares of the hypervolume, the same with a tenth per query added, and how many
    seeds `reached` them; `share_after` some evaluations; `area` is the mean share over all evaluations to
    the limit, where the last share of an ended course stays; seconds are of processor time.
    """

    problem: str
    sampler: str
    seeds: int
    limit: int
    evaluations: dict[str, Spread]
    evaluations_and_queries: dict[str, Spread]
    reached: dict[str, int]
    share_after: dict[str, Spread]
    area: Spread
    queries: float
    queries_per_evaluation: float
    seconds_per_proposal: float
    seconds_of_last_proposals: float


def summarize(courses: Sequence[Course]) -> Summary:
    """Return the summary of courses over seeds."""
    limit = courses[0].limit
    until = {f"{share:g}": [_until(course, share) for course in courses] for share in TARGETS}
    paid = {f"{share:g}": [_paid(course, share) for course in courses] for share in TARGETS}
    last = [second for course in courses for second in course.seconds[-10:]]
    return Summary(
        problem=courses[0].problem,
        sampler=courses[0].sampler,
        seeds=len(courses),
        limit=limit,
        evaluations={share: spread(counts) for share, counts in until.items()},
        evaluations_and_queries={share: spread(counts) for share, counts in paid.items()},
        reached={share: sum(map(math.isfinite, counts)) for share, counts in until.items()},
        share_after={str(mark): spread([_share_after(course, mark) for course in courses]) for mark in MARKS},
        area=spread([mean(_share_after(course, n) for n in range(1, limit + 1)) for course in courses]),
        queries=median(course.queries[-1] for course in courses),
        queries_per_evaluation=mean(course.queries[-1] / len(course.queries) for course in courses),
        seconds_per_proposal=mean(second for course in courses for second in course.seconds),
        seconds_of_last_proposals=mean(last),
    )


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the quartiles, infinite ones as None."""
    low, middle, high = (_finite(_quantile(sorted(values), share)) for share in (0.25, 0.5, 0.75))
    return Spread(median=middle, low=low, high=high)


def lines(summaries: Sequence[Summary]) -> str:
    """Return summaries as a table of evaluations to each target, and shares after some evaluations."""
    heads = [f"{float(share):.0%}" for share in map(str, TARGETS)] + [f"after {mark}" for mark in MARKS]
    rows = [f"{'':32}" + "".join(f"{head:>17}" for head in heads) + f"{'queries':>9}{'s/proposal':>12}  n"]
    for item in summaries:
        cells = [_cell(item.evaluations[f"{share:g}"], "g") for share in TARGETS]
        cells += [_cell(item.share_after[str(mark)], ".3f") for mark in MARKS]
        body = "".join(f"{cell:>17}" for cell in cells)
        name = f"{item.problem} {item.sampler}"
        rows.append(f"{name:32}{body}{item.queries:9g}{item.seconds_per_proposal:12.3f}  {item.seeds}")
    return "\n".join(rows)


def _until(course: Course, share: float) -> float:
    return next((float(n) for n, reached in enumerate(course.shares, start=1) if reached >= share), math.inf)


def _paid(course: Course, share: float) -> float:
    count = _until(course, share)
    return count + QUERY_COST * course.queries[int(count) - 1] if math.isfinite(count) else math.inf


def _share_after(course: Course, count: int) -> float:
    return course.shares[min(count, len(course.shares)) - 1]


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Return a quantile, between two values in proportion; infinite where one of the two is."""
    place = share * (len(ordered) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return high if math.isinf(high) or low == high else low + (place % 1) * (high - low)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _cell(found: Spread, form: str) -> str:
    middle, low, high = (
        "—" if value is None else format(value, form) for value in (found.median, found.low, found.high)
    )
    return f"{middle} [{low}–{high}]"
