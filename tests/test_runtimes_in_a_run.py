"""Runtimes in a run: chosen in a space, searched side by side, exported with scripts that run them."""

import json
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli_calls import SPACE, call, write
from report_runs import finished, plan, record, run_of
from search_toy import facts
from toys import stripes
from typer.testing import Result

from beats_search import plugins
from beats_search.records.errors import CommandError, MissingExtraError, SpaceError
from beats_search.records.part import Part
from beats_search.records.plan import TrialPlan
from beats_search.report.precision import rivalries
from beats_search.report.words import plan_in_words
from beats_search.search.folder import check_same_run, model_file
from beats_search.space.draw import Replay, draw, reference_plan
from beats_search.space.schema import read_space
from beats_search.trial.recipe import runtime_of

RUNTIMES = ("onnxruntime", "openvino", "torch_eager")
CHOICE = "runtime: {{choice: [{}]}}\n"


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """Return the folder of a search over runtimes, and what it said."""
    folder = tmp_path_factory.mktemp("searched")
    plain = "".join(
        line for line in SPACE.splitlines(keepends=True) if "compression" not in line and "bits" not in line
    )
    text = plain.replace("{choice: [8, 16]}", "8").replace("epochs: 2", "epochs: 1")
    space = write(folder, text + CHOICE.format(", ".join(f"{{name: {name}, batch_size: 2}}" for name in RUNTIMES)))
    return folder / "run", call("run", space, "--out", folder / "run")


@pytest.mark.slow
def test_each_runtime_of_a_choice_leaves_its_own_file(searched: tuple[Path, Result]) -> None:
    """A search over runtimes measures each of them beside the first, and their files and cards say what they are."""
    folder, result = searched
    assert result.exit_code == 0, result.output
    found = {}
    for card in sorted(folder.glob("models/*/card.json")):
        told = json.loads(card.read_text())
        assert [path.name for path in sorted(card.parent.glob("model.*"))] == [told["file"]["name"]]
        assert told["latency"]["median_ms"] > 0
        found[told["plan"]["runtime"]["name"], int(card.parent.name) == 0] = told["file"]["name"]
    assert found == {
        ("onnxruntime", True): "model.onnx",
        ("openvino", False): "model.onnx",
        ("torch_eager", False): "model.pt2",
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNTIMES)
def test_the_exported_script_runs_the_model_in_its_runtime(
    searched: tuple[Path, Result], name: str, tmp_path: Path
) -> None:
    """`export` leaves the file with a script that names the classes which the measured engine names."""
    folder, _ = searched
    cards = {path: json.loads(path.read_text()) for path in folder.glob("models/*/card.json")}
    (number,) = (path.parent.name for path, told in cards.items() if told["plan"]["runtime"]["name"] == name)
    assert call("export", folder, number, "--to", tmp_path / "shipped").exit_code == 0
    images = stripes().test.inputs[:5]
    np.save(tmp_path / "images.npy", images.numpy())
    command = [sys.executable, "run.py", str(tmp_path / "images.npy")]
    ran = subprocess.run(command, cwd=tmp_path / "shipped", capture_output=True, text=True, check=True)
    plan_there = TrialPlan(
        dataset=Part(name="toys:stripes"),
        model=Part(name="toys:net"),
        training=plan().training,
        runtime=Part(name=name),
    )
    logits = runtime_of(plan_there).load(model_file(folder, int(number))).logits(images)
    assert ran.stdout.strip() == str([f"line {row.argmax()}" for row in logits])


def test_the_reference_runs_in_the_first_runtime_of_a_choice(tmp_path: Path) -> None:
    """Options are conditional: each runtime has settings of its own, and the first one is the reference's."""
    text = SPACE + CHOICE.format("openvino, {name: onnxruntime, threads: {choice: [1, 2]}}")
    space = read_space(text, file=tmp_path / "space.yaml")
    values = {"model.width": 8, "compression.quantization.bits": 8}
    assert reference_plan(space, lambda _: 0).runtime.name == "openvino"
    drawn = draw(space, Replay({**values, "runtime": "onnxruntime", "runtime.onnxruntime.threads": 2}))
    assert drawn.runtime["threads"] == 2
    assert draw(space, Replay({**values, "runtime": "openvino"})).runtime.name == "openvino"


@pytest.mark.parametrize(
    "runtime",
    [
        "{name: onnxruntime, linear_bits: {choice: [4, 32]}}",
        "{name: onnxruntime, linear_bits: 8}",
        "{choice: [{name: torch_eager, precision: {choice: [bf16, fp32]}}, onnxruntime]}",
    ],
)
def test_the_reference_is_in_full_precision(runtime: str, tmp_path: Path) -> None:
    """Whatever comes first, or is all that the space allows, does not round the reference."""
    space = read_space(f"{SPACE}runtime: {runtime}\n", file=tmp_path / "space.yaml")
    settings = dict(reference_plan(space, lambda _: 0).runtime.settings)
    assert settings.get("linear_bits", 32) == 32
    assert settings.get("precision", "fp32") == "fp32"


def test_a_pinned_precision_holds_for_the_reference(tmp_path: Path) -> None:
    """Who asks for it compares with a reference in fewer bits."""
    runtime = "runtime: {name: onnxruntime, linear_bits: {choice: [32, 4]}}\n"
    text = f"{SPACE}{runtime}reference: {{runtime.linear_bits: 4}}\n"
    space = read_space(text, file=tmp_path / "space.yaml")
    assert reference_plan(space, lambda _: 0).runtime["linear_bits"] == 4


def test_runtimes_of_a_choice_need_the_same_batch_size(tmp_path: Path) -> None:
    """Latencies of two batch sizes do not compare, so options that differ in it are refused where they stand."""
    text = SPACE + CHOICE.format("{name: onnxruntime, batch_size: 4}, openvino, {name: torch_eager, batch_size: 4}")
    told = r"space.yaml:11: the options at runtime need the same batch_size, which is fixed for a whole run, "
    with pytest.raises(SpaceError, match=rf"{told}got 4 \(onnxruntime, torch_eager\) and 1 \(openvino\)"):
        read_space(text, file=tmp_path / "space.yaml")
    read_space(text.replace("openvino", "{name: openvino, batch_size: 4}"), file=tmp_path / "space.yaml")


def _without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process be one in which OpenVINO is not installed."""
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "beats_search.runtimes.openvino", raising=False)


def test_a_missing_extra_is_named_with_the_line_that_needs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A space that needs OpenVINO where it is not installed says which extra brings it, before anything runs."""
    _without_openvino(monkeypatch)
    with pytest.raises(MissingExtraError, match=r"pip install 'beats-search\[openvino\]'"):
        plugins.settings_class("runtimes", "openvino")
    result = call("check", write(tmp_path, SPACE + "runtime: openvino\n"))
    assert result.exit_code == 3
    assert "space.yaml:11: runtime 'openvino' needs 'openvino': pip install 'beats-search[openvino]'" in result.output


def test_parts_and_schema_do_without_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs an extra is listed all the same, with how to install it."""
    _without_openvino(monkeypatch)
    lines = {line.name: line.summary for line in plugins.all_parts() if line.shelf == "runtimes"}
    assert "pip install 'beats-search[openvino]'" in lines["openvino"]
    assert "ONNX Runtime" in lines["onnxruntime"]
    assert call("schema").exit_code == 0


def test_extras_that_are_named_can_be_installed() -> None:
    """Every extra of a message is one of the package, and brings the library of its name."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    for extra in plugins.EXTRAS:
        assert any(library.startswith(extra) for library in project["optional-dependencies"][extra])


@pytest.mark.parametrize(("name", "library"), [("openvino", "openvino"), ("torch_eager", "torch")])
def test_a_run_goes_on_with_the_libraries_that_it_was_timed_with(name: str, library: str) -> None:
    """Another version of a runtime's library is refused where the space names that runtime, and only there."""
    environment = {"processor": "P", "instructions": "avx2", "onnxruntime": "1", library: "1"}
    then = replace(facts(), environment=environment, space_canonical=f'{{"name": "{name}"}}')
    now = replace(then, environment={**environment, library: "2"})
    with pytest.raises(CommandError, match=f"was timed with {library} '1', and here it is '2'"):
        check_same_run(then, now, Path("run"))
    check_same_run(replace(then, space_canonical="{}"), replace(now, space_canonical="{}"), Path("run"))


def test_a_model_is_found_under_either_name(tmp_path: Path) -> None:
    """The model of a trial is the file that is there; where none is, it would be an ONNX file."""
    assert model_file(tmp_path, 3) == tmp_path / "models" / "3" / "model.onnx"
    (tmp_path / "models" / "3").mkdir(parents=True)
    (tmp_path / "models" / "3" / "model.pt2").write_text("")
    assert model_file(tmp_path, 3) == tmp_path / "models" / "3" / "model.pt2"


def test_words_say_what_is_unusual_about_a_runtime() -> None:
    """A plan in words names a runtime that is not the usual one, its device and its precision."""
    usual = replace(plan(), runtime=Part(name="onnxruntime", settings=(("threads", 1), ("linear_bits", 32))))
    settings = (("device", "cuda"), ("precision", "bf16"), ("cuda_graphs", True))
    unusual = replace(plan(), runtime=Part(name="torch_compile", settings=settings))
    assert "onnxruntime" not in plan_in_words(usual)
    assert plan_in_words(unusual).endswith("; on torch_compile, cuda, in bf16, cuda graphs")


def test_precisions_of_one_runtime_are_rivals() -> None:
    """What a lower precision gained is told where it is a setting of the runtime, too, and names the runtime."""
    plans = [
        replace(plan(), runtime=Part(name="openvino", settings=(("precision", precision),)))
        for precision in ("fp32", "bf16")
    ]
    run = run_of(record(0, finished(), plans[0]), record(1, finished(latency_ms=0.1, as_="bf16"), plans[1]))
    (rivalry,) = rivalries(run)
    assert (rivalry.executed_as, rivalry.low_trials, rivalry.full_trials) == ("bf16", (1,), (0,))
    assert rivalry.structure.endswith("on openvino")
