"""Energy: counters that wrap, domains that are not counted twice, and machines that have none."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_calls import SPACE, call, write
from hypothesis import given
from hypothesis import strategies as st
from report_runs import finished, record, run_of

from beats_search.cli.tables import front_table
from beats_search.measuring.energy import EnergyCounters, check_counted, find_counters, measure_energy
from beats_search.records.errors import CommandError, TrialError
from beats_search.records.objective import Constraint, Objective
from beats_search.records.outcome import Interval, outcome_from_plain
from beats_search.records.part import Part
from beats_search.records.plain import tagged
from beats_search.report.front import front_document
from beats_search.report.measures import MEASURES, measured
from beats_search.report.page import write_page
from beats_search.report.tables import front_rows

RANGE = 262_143_328_850


def domain(root: Path, folder: str, name: str, counted: int = 0) -> Path:
    """Write a domain as the kernel shows it."""
    path = root / folder
    path.mkdir()
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{counted}\n")
    (path / "max_energy_range_uj").write_text(f"{RANGE}\n")
    return path


@dataclass
class Bench:
    """A machine whose every call takes 2 ms and costs a number of microjoules, and whose counter wraps."""

    package: Path
    cost_uj: int
    now: float = 0.0

    def session(self) -> Callable[[], None]:
        def compute() -> None:
            self.now += 0.002
            counter = self.package / "energy_uj"
            counter.write_text(str((int(counter.read_text()) + self.cost_uj) % (RANGE + 1)))

        return compute

    def clock(self) -> float:
        return self.now


@pytest.mark.parametrize("counted", [0, RANGE - 1000], ids=["fresh", "about to wrap"])
def test_energy_of_a_call_is_what_the_counter_says(tmp_path: Path, counted: int) -> None:
    """What half a second of calls has cost is shared among them, also when the counter starts anew meanwhile."""
    bench = Bench(package=domain(tmp_path, "intel-rapl:0", "package-0", counted), cost_uj=30_000)
    spent = measure_energy(bench.session, find_counters(tmp_path), clock=bench.clock)
    assert (spent.low, spent.value, spent.high) == pytest.approx((30.0, 30.0, 30.0))
    assert 0.5 <= bench.now < 0.6


def test_energy_has_the_interval_of_its_scatter(tmp_path: Path) -> None:
    """Where calls cost 20 to 40 mJ, by stretches, the interval lies in between and holds their mean."""
    bench = Bench(package=domain(tmp_path, "intel-rapl:0", "package-0"), cost_uj=0)
    costs = np.random.default_rng(0).uniform(20_000, 40_000, 99)

    def session() -> Callable[[], None]:
        call = bench.session()

        def uneven() -> None:
            bench.cost_uj = int(costs[int(bench.now / 0.05)])
            call()

        return uneven

    spent = measure_energy(session, find_counters(tmp_path), clock=bench.clock)
    assert 20.0 < spent.low < spent.value - 1.0
    assert spent.low < 1e-3 * costs[:11].mean() < spent.high
    assert spent.value + 1.0 < spent.high < 40.0


def test_a_long_call_is_made_once(tmp_path: Path) -> None:
    """A call that is longer than the time to measure still gives a value."""
    bench = Bench(package=domain(tmp_path, "intel-rapl:0", "package-0"), cost_uj=5_000)
    counters = find_counters(tmp_path)
    assert measure_energy(bench.session, counters, seconds=0.0, clock=bench.clock).value == pytest.approx(5.0)


def test_packages_and_memory_count_and_their_parts_do_not(tmp_path: Path) -> None:
    """Cores are within their package, and the whole system would count the package twice."""
    names = {"0": "package-0", "0:0": "core", "0:1": "dram", "1": "package-1", "2": "psys"}
    for place, name in names.items():
        domain(tmp_path, f"intel-rapl:{place}", name)
    domain(tmp_path, "intel-rapl-mmio:0", "package-0")
    (tmp_path / "intel-rapl").mkdir()
    found = [path.name for path in find_counters(tmp_path).domains]
    assert found == ["intel-rapl:0", "intel-rapl:0:1", "intel-rapl:1"]


@given(before=st.integers(0, RANGE), spent=st.integers(0, RANGE))
def test_a_counter_that_starts_anew_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory, before: int, spent: int
) -> None:
    """From any reading, up to one range of energy is read back."""
    counters = EnergyCounters(domains=(domain(tmp_path_factory.mktemp("root"), "intel-rapl:0", "package-0"),))
    after = (before + spent) % (RANGE + 1)
    assert counters.spent_mj((before,), (after,)) == pytest.approx(spent / 1000)


def test_a_machine_without_counters_is_told(tmp_path: Path) -> None:
    """The reason and what to do stand in the message."""
    with pytest.raises(CommandError, match=r"no energy counters in .* take energy_mj out"):
        find_counters(tmp_path / "nothing")


def test_counters_that_may_not_be_read_are_told(tmp_path: Path) -> None:
    """Who may not read the counters is told how to allow it."""
    counter = domain(tmp_path, "intel-rapl:0", "package-0") / "energy_uj"
    counter.unlink()
    counter.mkdir()  # root may read any file, but not this
    with pytest.raises(CommandError, match="sudo chmod"):
        find_counters(tmp_path)


@pytest.mark.usefixtures("toys_importable")
@pytest.mark.parametrize("command", ["run", "check"])
@pytest.mark.parametrize(
    "wanted",
    ["objectives: {accuracy: maximize, energy_mj: minimize}", 'constraints: {energy_mj: "<= 5"}'],
    ids=["objective", "constraint"],
)
def test_a_space_that_needs_energy_is_refused_without_counters(
    command: str, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything runs the command ends with 2 and says why."""
    monkeypatch.setattr("beats_search.measuring.energy.find_counters", lambda: find_counters(tmp_path / "nothing"))
    result = call(command, write(tmp_path, f"{SPACE}{wanted}\n"))
    assert result.exit_code == 2, result.output
    assert "no energy counters" in result.output
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize(
    ("device", "here", "counted"),
    [("cpu", True, True), ("auto", False, True), ("auto", True, False), ("cuda:0", True, False)],
)
def test_only_what_the_processor_computes_is_counted(
    device: str, *, here: bool, counted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a model uses on an accelerator is not in the processor's counters, so it is refused."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: here)
    runtime = Part(name="torch_eager", settings=(("device", device),))
    with (
        nullcontext()
        if counted
        else pytest.raises(TrialError, match=f"torch_eager computes on {device}; take device: cpu")
    ):
        check_counted(runtime)


def test_energy_is_a_value_like_others() -> None:
    """It survives being written, it is in front.json with its interval where it was measured, and nowhere else."""
    frugal = replace(finished(), energy_mj=1.5, energy_interval_mj=Interval(low=1.4, high=1.7))
    assert outcome_from_plain(tagged(frugal)) == frugal
    assert frugal.value("energy_mj") == 1.5
    run = run_of(record(0, finished(accuracy=0.99)), record(1, replace(frugal, accuracy=1.0)))
    document: Any = front_document(run)
    assert [member["values"]["energy_mj"] for member in document["front"]] == [1.5]
    assert [member["intervals"]["energy_mj"] for member in document["front"]] == [[1.4, 1.7]]
    for part in ("values", "intervals"):
        assert ["energy_mj" in member[part] for member in document["baselines"]] == [False]


@pytest.mark.parametrize("name", ["energy_mj", "macs"])
@pytest.mark.parametrize("limited", [False, True], ids=["objective", "limit"])
def test_tables_show_what_counts(name: str, tmp_path: Path, *, limited: bool) -> None:
    """What is an objective or limited has a column in the table of the front and on the page; else there is none."""
    frugal = replace(finished(macs=1_234_567), energy_mj=1.5)
    usual = run_of(record(0, frugal))
    limits = (Constraint(name=name, sign="<=", bound=1e9),) if limited else ()
    goals = usual.objectives if limited else (*usual.objectives, Objective(name=name, direction="minimize"))
    counting = replace(usual, objectives=goals, constraints=limits, reference_point={})
    word, text = MEASURES[name].word, measured(name, frugal.value(name))
    for run, shown in ((usual, False), (counting, True)):
        table = front_table(front_rows(run))
        columns = {str(column.header): list(column.cells) for column in table.columns}
        assert (columns.get(word) == [text]) == shown
        write_page([run], tmp_path / "report.html", folders=[tmp_path])
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert (">Energy<" in page) == (shown and name == "energy_mj")
