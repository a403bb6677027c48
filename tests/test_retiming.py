"""Retiming: who is timed once more, on which scale, how it is kept, and what is told of it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_calls import call, write
from hypothesis import given
from hypothesis import strategies as st
from report_runs import finished, objectives, plan, realistic_run, record, run_of
from search_toy import budget, sit
from torch import nn

from beats_search.measuring.blocks import Protocol
from beats_search.pareto import front_of_run, ties_of_run, undecided_of_run
from beats_search.records.objective import Constraint
from beats_search.records.outcome import Finished, Interval, Latency
from beats_search.records.part import Part
from beats_search.records.plain import from_plain, to_plain
from beats_search.records.run import RunRecord, with_latency
from beats_search.report.front import front_document
from beats_search.report.page import write_page
from beats_search.report.tables import front_rows
from beats_search.report.timing import remarks, retiming_in_words
from beats_search.runtimes.onnxruntime import OnnxRuntime
from beats_search.search import sitting
from beats_search.search.attempt import Attempted
from beats_search.search.folder import model_file
from beats_search.search.ledger import Ledger
from beats_search.search.reading import read_run
from beats_search.trial import retiming
from beats_search.trial.retiming import retime, to_retime

QUICK = Protocol(budget_s=0.0)
MANY = 99


def timed(accuracy: float, latency_ms: float, spread: float = 0.03) -> Finished:
    """Return a finished outcome whose latency is known to `spread` on both sides."""
    outcome = finished(accuracy=accuracy, latency_ms=latency_ms)
    ends = Interval(low=(1 - spread) * latency_ms, high=(1 + spread) * latency_ms)
    return replace(outcome, latency=replace(outcome.latency, interval_ms=ends))


def run_with(*outcomes: Finished) -> RunRecord:
    """Return a run of these trials, numbered from 0."""
    return run_of(*(record(number, outcome) for number, outcome in enumerate(outcomes)))


def retimed(run: RunRecord, factors: dict[int, float], spread: float = 0.01) -> RunRecord:
    """Return a run as if trials had been timed once more, each so many times slower than before."""
    trials, first = list(run.trials), {}
    for number, factor in factors.items():
        outcome = trials[number].outcome
        assert isinstance(outcome, Finished)
        first[number] = outcome.latency
        again = timed(outcome.accuracy, factor * outcome.latency.median_ms, spread).latency
        ratio = again.ratio
        ends = Interval(low=(1 - spread) * ratio, high=(1 + spread) * ratio)
        trials[number] = replace(trials[number], outcome=replace(outcome, latency=replace(again, ratio_interval=ends)))
    return replace(run, trials=tuple(trials), first_latency=first)


def numbers(run: RunRecord, most: int = MANY) -> list[int]:
    """Return who is undecided, by number."""
    return [trial.number for trial in undecided_of_run(run, most)]


def test_a_trial_that_noise_may_have_kept_off_the_front_is_a_near_miss() -> None:
    """Whose interval overlaps that of the trial that beats it is undecided; who is clearly slower is not."""
    run = run_with(timed(0.99, 0.4), timed(0.95, 0.2), timed(0.94, 0.205), timed(0.94, 0.3))
    assert numbers(run) == [1, 0, 2]


def test_a_trial_that_noise_may_have_kept_over_a_limit_is_a_near_miss() -> None:
    """Who breaks a limit on latency by less than the noise is undecided, who breaks it clearly is not."""
    run = run_with(timed(0.99, 0.4), timed(0.95, 0.2), timed(0.97, 0.305), timed(0.97, 0.35))
    limit = Constraint(name="latency_ms", sign="<=", bound=0.3)
    assert numbers(replace(run, constraints=(limit,))) == [1, 2]


def test_near_misses_are_limited_and_the_front_is_not() -> None:
    """The nearest come first, no more than there is room for; a long front is returned whole."""
    run = run_with(timed(0.99, 0.4), timed(0.95, 0.2, 0.2), timed(0.94, 0.22, 0.2), timed(0.94, 0.21, 0.2))
    assert numbers(run) == [1, 0, 3, 2]
    assert numbers(run, most=3) == [1, 0, 3]
    assert numbers(run, most=1) == [1, 0]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=9), st.randoms())
def test_no_timing_within_the_intervals_brings_in_another(points: list[tuple[int, int]], random_: object) -> None:
    """Wherever in their intervals the latencies are in truth, the front consists of undecided trials."""
    assert hasattr(random_, "uniform")
    run = run_with(*(timed(accuracy / 10, float(latency), 0.2) for accuracy, latency in points))
    chosen = set(numbers(run))
    moved = retimed(run, {trial.number: random_.uniform(0.8, 1.2) for trial in run.trials})
    assert {trial.number for trial, _ in front_of_run(run)} <= chosen
    assert {trial.number for trial, _ in front_of_run(moved)} <= chosen


def test_all_whose_intervals_overlap_are_ties() -> None:
    """Of three that are as fast each ties with both others, whoever lies between."""
    run = run_with(timed(0.99, 0.412), timed(0.94, 0.200), timed(0.95, 0.201), timed(0.96, 0.202))
    assert ties_of_run(retimed(run, {1: 1.0, 2: 1.0, 3: 1.0})) == ((1, 2), (1, 3), (2, 3))


def test_points_whose_intervals_overlap_are_a_tie() -> None:
    """Ties are points that were timed side by side, never strangers."""
    run = run_with(timed(0.99, 0.412), timed(0.95, 0.20), timed(0.96, 0.203), timed(0.97, 0.3))
    assert ties_of_run(run) == ()
    assert ties_of_run(retimed(run, {1: 1.0, 2: 1.0, 3: 1.0})) == ((1, 2),)
    assert ties_of_run(retimed(run, {1: 1.0, 3: 1.0})) == ()
    assert ties_of_run(replace(retimed(run, {1: 1.0, 2: 1.0}), objectives=run.objectives[:1])) == ()


def test_the_reference_ties_with_who_may_be_as_fast() -> None:
    """The ratio of the reference to itself is exactly 1, so a neighbour whose interval holds 1 is a tie."""
    run = run_with(timed(0.99, 0.412), timed(0.95, 0.41))
    assert ties_of_run(retimed(run, {1: 1.0})) == ((1, 0),)
    assert ties_of_run(retimed(run, {1: 0.9})) == ()


def test_what_changed_is_told() -> None:
    """The page counts who was timed, who left, who came in, and the ties; before, it says nothing."""
    run = run_with(timed(0.99, 0.412), timed(0.95, 0.20), timed(0.94, 0.205), timed(0.96, 0.207))
    assert retiming_in_words(run) == ""
    same = retimed(run, {1: 1.0, 2: 1.0, 3: 1.2})
    assert retiming_in_words(same) == "All 3 points were timed once more, side by side: the front stayed as it was."
    other = retimed(run, {1: 1.1, 2: 0.9, 3: 0.9})
    assert retiming_in_words(other) == (
        "All 3 points were timed once more, side by side: 1 left the front, 1 came in. "
        "1 pair of points is a tie: their latencies cannot be told apart."
    )
    assert retiming_in_words(retimed(run, {1: 1.0, 2: 1.0})).startswith("2 of 3 points were")


def test_the_tables_and_the_page_show_ties(tmp_path: Path) -> None:
    """A tie is marked in the rows of both neighbours, on the page, and not in front.json, whose shape is fixed."""
    run = retimed(run_with(timed(0.99, 0.412), timed(0.95, 0.20), timed(0.96, 0.203)), {1: 1.0, 2: 1.0})
    assert {row.trial: row.ties for row in front_rows(run)} == {0: (), 1: (2,), 2: (1,)}
    write_page([run], tmp_path / "report.html", folders=[tmp_path])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "as fast as trial 2" in page
    assert retiming_in_words(run) in page
    assert front_document(run).keys() == front_document(run.as_searched()).keys()


def test_front_json_holds_the_final_latencies() -> None:
    """Values and intervals of the front are those of the second timing."""
    run = retimed(run_with(timed(0.99, 0.412), timed(0.95, 0.20)), {1: 0.5})
    document: Any = front_document(run)
    (member,) = (each for each in document["front"] if each["trial"] == 1)
    assert member["values"]["latency_ms"] == pytest.approx(0.1)
    assert member["intervals"]["latency_ms"] == pytest.approx([0.099, 0.101])


def test_a_run_is_what_it_was_without_its_second_timing() -> None:
    """Both timings are kept: `as_searched` gives back the first."""
    run = realistic_run()
    number = run.finished()[3][0].number
    assert retimed(run, {number: 1.3}) != run
    assert retimed(run, {number: 1.3}).as_searched() == run


def in_a_bad_minute(run: RunRecord, factor: float) -> RunRecord:
    """Return a run whose reference was timed on a machine so many times as slow: all milliseconds are as many."""
    bad = (with_latency(trial, outcome.latency.times(factor)) for trial, outcome in run.finished())
    known = {"latency_ms": factor * 0.3}
    corner = {**run.reference_point, "latency_ms": factor * run.reference_point["latency_ms"]}
    return replace(run, trials=tuple(replace(trial, known=known) for trial in bad), reference_point=corner)


def test_the_last_timing_of_the_reference_is_the_scale_of_all_latencies() -> None:
    """After a bad minute at trial 0 latencies, limits and corner are in true milliseconds, and ratios as before."""
    true = run_with(timed(0.99, 0.4), timed(0.95, 0.2), timed(0.97, 0.3), timed(0.90, 0.39))
    true = replace(true, constraints=(Constraint(name="latency_ms", sign="<=", bound=0.35),))
    slow = in_a_bad_minute(true, 2.0)
    assert [trial.number for trial, _ in slow.feasible()] == []
    finals = {trial.number: outcome.latency for trial, outcome in true.finished()[:2]}
    mended = slow.timed_once_more(finals)
    assert milliseconds(mended) == pytest.approx(milliseconds(in_a_bad_minute(true, 1.0)))
    assert [outcome.latency.ratio for _, outcome in mended.finished()] == [
        outcome.latency.ratio for _, outcome in true.finished()
    ]
    assert [trial.number for trial, _ in mended.feasible()] == [1, 2]
    assert mended.first_latency.keys() == {0, 1}
    assert milliseconds(mended.as_searched()) == pytest.approx(milliseconds(slow))


def milliseconds(run: RunRecord) -> list[float]:
    """Return all milliseconds of a run, those of the corner and of what was known before training among them."""
    latencies = [outcome.latency for _, outcome in run.finished()]
    ends = [end for latency in latencies for end in (latency.interval_ms.low, latency.interval_ms.high)]
    known = [trial.known["latency_ms"] for trial in run.trials]
    return [*(latency.median_ms for latency in latencies), *ends, *known, run.reference_point["latency_ms"]]


def test_a_timing_without_the_reference_s_own_scales_nothing() -> None:
    """In runs of before it was noted, only who was timed once more has another latency."""
    run = run_with(timed(0.99, 0.4), timed(0.95, 0.2), timed(0.97, 0.3))
    after = run.timed_once_more({1: timed(0.95, 0.1).latency})
    assert [outcome.latency.median_ms for _, outcome in after.finished()] == [0.4, 0.1, 0.3]
    assert after.reference_point == run.reference_point


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ()),
        ({"settled": False}, ("timing did not settle",)),
        ({"disturbed_blocks": 30}, ("the machine was busy while this was timed",)),
        ({"disturbed_blocks": 3}, ()),
        ({"drifted": True}, ("the machine's speed drifted while this was timed",)),
    ],
)
def test_what_speaks_against_a_timing_is_told(change: Mapping[str, Any], said: tuple[str, ...]) -> None:
    """Each fault of a timing has its words; a few disturbed blocks of many are none."""
    assert remarks(replace(finished().latency, **change)) == said


def test_latencies_of_older_runs_can_be_read() -> None:
    """A latency that was written before disturbances were counted reads as undisturbed."""
    written = to_plain(finished().latency)
    assert isinstance(written, dict)
    older = {key: value for key, value in written.items() if key not in {"disturbed_blocks", "drifted"}}
    assert from_plain(Latency, older) == finished().latency


def test_final_latencies_are_kept_in_the_study(tmp_path: Path) -> None:
    """They replace those of the trials in what is read, every time anew, and the search goes on from its own."""
    path = tmp_path / "study.db"
    sit(path, budget(4))
    before = read_run(path)
    chosen = [trial.number for trial, _ in before.finished()][1:3]
    for factor in (0.5, 0.7):
        finals = {
            trial.number: replace(outcome.latency, median_ms=factor * outcome.latency.median_ms)
            for trial, outcome in before.finished()
            if trial.number in chosen
        }
        with Ledger.open(path) as ledger:
            ledger.set_final_latencies(finals)
            known = {number: trial.outcome for number, trial in ledger.account.records.items()}
        after = read_run(path)
        assert {trial.number: outcome.latency for trial, outcome in after.finished()} == {
            trial.number: finals.get(trial.number, outcome.latency) for trial, outcome in before.finished()
        }
        assert after.first_latency.keys() == set(chosen)
        assert after.as_searched() == before
        assert known == {trial.number: trial.outcome for trial in before.trials}


def test_a_search_goes_on_in_the_milliseconds_that_it_knew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read after the last timing is on its scale; a trial is judged beside the latencies as they were told."""
    path, judged = tmp_path / "study.db", list[RunRecord]()
    sit(path, budget(3))
    before = read_run(path)
    (_, reference), (other, told), *_ = before.finished()
    with Ledger.open(path) as ledger:
        ledger.set_final_latencies({0: reference.latency.times(0.5)})
    read = {trial.number: outcome.latency.median_ms for trial, outcome in read_run(path).finished()}
    assert read[other.number] == pytest.approx(0.5 * told.latency.median_ms)

    class Noting:
        refused = told

        def __init__(self, run: Callable[[], RunRecord], *_: object, **__: object) -> None:
            judged.append(run())

        def ended(self, outcome: Finished) -> Attempted:
            return Attempted(outcome=outcome, known={})

    monkeypatch.setattr(sitting, "Attempt", Noting)
    sit(path, budget(4))
    assert [trial.outcome for trial in judged[0].trials] == [trial.outcome for trial in before.trials]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Return where three models are: a wide one as the reference, a narrow one, and the wide one again."""
    folder = tmp_path_factory.mktemp("run")
    for number, width in enumerate((600, 30, 600)):
        torch.manual_seed(0)
        layers = (nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
        path = model_file(folder, number)
        path.parent.mkdir(parents=True)
        OnnxRuntime().deploy(nn.Sequential(nn.Flatten(), *layers).eval(), torch.rand(1, 1, 8, 8), path)
    return partial(model_file, folder)


def real_run() -> RunRecord:
    """Return a run of three trials with these models, of which trial 2 nearly reaches the front."""
    runtime = Part(name="onnxruntime")
    run = run_with(timed(0.99, 0.4), timed(0.95, 0.2), timed(0.94, 0.2))
    return replace(run, trials=tuple(replace(trial, plan=replace(plan(), runtime=runtime)) for trial in run.trials))


@pytest.mark.slow
def test_files_are_timed_on_the_scale_of_the_reference_beside_them(files: Callable[[int], Path]) -> None:
    """A file equal to the reference's gets about its latency of the same rounds; a smaller network's is faster."""
    run = real_run()
    for _attempt in range(3):  # a few quick blocks on a busy machine may all be cut short
        latencies = retime(run, run.trials[1:], files, QUICK)
        assert latencies.keys() == {0, 1, 2}
        if latencies[2].median_ms == pytest.approx(latencies[0].median_ms, rel=0.5):
            break
    assert latencies[0].ratio == 1.0
    assert 0.4 < latencies[0].median_ms / latencies[0].raw_median_ms < 2.5  # a machine may be at two speeds
    assert latencies[0].interval_ms.low <= latencies[0].median_ms <= latencies[0].interval_ms.high
    assert latencies[1].median_ms < 0.7 * latencies[0].median_ms
    assert latencies[2].median_ms == pytest.approx(latencies[0].median_ms, rel=0.5)
    assert all(latency.blocks >= QUICK.least_rounds for latency in latencies.values())


def test_whoever_is_undecided_and_has_a_file_is_timed_once(files: Callable[[int], Path]) -> None:
    """The reference is what others are timed beside; when all are known, nothing is left to time."""
    run = real_run()
    assert [trial.number for trial in to_retime(run, files)] == [1, 2]
    assert [trial.number for trial in to_retime(retimed(run, {1: 1.0}), files)] == [1, 2]
    assert to_retime(retimed(run, {1: 1.0, 2: 1.0}), files) == ()


def test_where_latency_does_not_count_nothing_is_timed(files: Callable[[int], Path]) -> None:
    """Models are timed once more for an objective or a limit on latency, and for nothing else."""
    run = real_run()
    others = replace(run, objectives=objectives("accuracy", "size_kb"))
    assert to_retime(others, files) == ()
    limited = replace(others, constraints=(Constraint(name="latency_ms", sign="<=", bound=0.3),))
    assert to_retime(limited, files)


def test_what_has_no_file_is_not_timed(files: Callable[[int], Path], tmp_path: Path) -> None:
    """A model that somebody deleted keeps its first latency; without the reference's all do."""
    run = real_run()
    assert [trial.number for trial in to_retime(run, lambda number: files(number % 2))] == [1, 2]
    assert [trial.number for trial in to_retime(run, lambda n: files(n) if n < 2 else tmp_path / "gone")] == [1]
    assert to_retime(run, lambda _: tmp_path / "gone") == ()


@pytest.mark.slow
@pytest.mark.usefixtures("toys_importable")
def test_a_run_ends_with_its_front_timed_once_more(tmp_path: Path) -> None:
    """The run's front was timed side by side; it and `show` say so; going on without new trials keeps the figures."""
    out = tmp_path / "out"
    result = call("run", write(tmp_path), "--out", out, "--trials", 3)
    assert result.exit_code == 0, result.output
    assert "once more, side by side with the reference" in result.output
    run = read_run(out / "study.db")
    assert {trial.number for trial, _ in front_of_run(run)} <= {0, *run.first_latency}
    assert retiming_in_words(run)
    assert retiming_in_words(run) in " ".join(call("show", out).output.split())
    assert call("run", tmp_path / "space.yaml", "--out", out, "--trials", 3).exit_code == 0
    assert read_run(out / "study.db") == run


@pytest.mark.slow
@pytest.mark.usefixtures("toys_importable")
def test_ctrl_c_while_the_front_is_timed_keeps_the_latencies_of_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The results are written all the same, the ending is that of an interrupted run, and the next run times."""
    out = tmp_path / "out"

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(retiming, "retime", interrupted)
        assert call("run", write(tmp_path), "--out", out, "--trials", 2).exit_code == 130
    assert (out / "report.html").is_file()
    assert read_run(out / "study.db").first_latency == {}
    assert call("run", tmp_path / "space.yaml", "--out", out, "--trials", 2).exit_code == 0
    assert read_run(out / "study.db").first_latency
