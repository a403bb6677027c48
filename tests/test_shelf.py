"""The shelf: what one process of a run has exported or timed, the others do not export or time again."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from export_toys import of_its_own
from test_stages import LATENCY, PLAN, REFERENCE
from torch import Tensor, nn

from beats_search.records.outcome import Interval, Latency
from beats_search.records.part import Part
from beats_search.runtimes import _onnx_export as exporter
from beats_search.runtimes._onnx_export import export_onnx
from beats_search.tensors import shelf
from beats_search.tensors.structure import Known, name_of, structure_of
from beats_search.trial import probe as probing
from beats_search.trial import run as trial_run
from beats_search.trial.probe import Probes, probe_file
from beats_search.trial.run import Instruments, run_trial
from beats_search.trial.timings import Timed, Timings

EXAMPLE = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
NARROW = replace(LATENCY, ratio_interval=Interval(low=0.95, high=1.05))
WIDE = replace(LATENCY, ratio_interval=Interval(low=0.8, high=1.2))


@pytest.fixture(autouse=True)
def _shelf(tmp_path: Path) -> Iterator[None]:
    folder = tmp_path / "shelf"
    folder.mkdir()
    shelf.share_in(folder)
    yield
    shelf.share_in(None)


def net(width: int = 4, last: nn.Module | None = None) -> nn.Module:
    """Return a small network."""
    torch.manual_seed(width)
    layers = (nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), last or nn.ReLU(), nn.Flatten(), nn.Linear(36 * width, 10))
    return nn.Sequential(*layers).eval()


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """Know no graph any more, as another process."""
    monkeypatch.setattr(exporter, "_TEMPLATES", Known(most=32))
    monkeypatch.setattr(exporter, "_OF_ANY_SIZE", Known(most=32))


def test_a_text_is_kept_until_the_folder_goes(tmp_path: Path) -> None:
    """What cannot be written, has no name or nobody wrote is not there, and nothing is raised."""
    shelf.put("a", "text ü")
    assert shelf.taken("a") == "text ü"
    assert shelf.taken("b") is None
    shelf.put(None, "text")
    assert shelf.taken(None) is None
    shelf.share_in(tmp_path / "gone")
    shelf.put("a", "other")
    assert shelf.taken("a") is None
    shelf.share_in(None)
    shelf.put("a", "other")
    assert shelf.taken("a") is None
    assert [path.name for path in (tmp_path / "shelf").iterdir()] == ["a"]


@pytest.mark.parametrize("width", [4, 6])
def test_a_network_is_exported_by_one_process_alone(
    width: int, exports: list[nn.Module], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The file of another process is, to the byte, the one that it would have exported itself."""
    export_onnx(net(), EXAMPLE, tmp_path / "first.onnx")
    forget(monkeypatch)
    export_onnx(net(width), EXAMPLE, tmp_path / "second.onnx")
    assert len(exports) == 1
    assert (tmp_path / "second.onnx").read_bytes() == of_its_own(net(width), EXAMPLE)


def test_a_graph_that_computes_something_else_is_not_taken(
    exports: list[nn.Module], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever a name promises, what is taken is compared with the network at hand."""
    export_onnx(net(last=nn.Tanh()), EXAMPLE, tmp_path / "other.onnx")
    (kept,) = (tmp_path / "shelf").iterdir()
    wrong = kept.read_text(encoding="utf-8")
    kept.unlink()
    forget(monkeypatch)
    export_onnx(net(), EXAMPLE, tmp_path / "own.onnx")
    (right,) = (tmp_path / "shelf").iterdir()
    right.write_text(wrong, encoding="utf-8")
    forget(monkeypatch)
    export_onnx(net(), EXAMPLE, tmp_path / "again.onnx")
    assert len(exports) == 3
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "own.onnx").read_bytes()


def timed(latency: Latency) -> Timed:
    """Return a timing of some file."""
    return Timed(file="model.onnx", latency=latency, seconds=0.5)


@pytest.mark.parametrize("latency", [NARROW, WIDE])
def test_a_narrow_timing_is_shared(latency: Latency) -> None:
    """Others take it over for the same structure at the same scale; a wide one they measure anew."""
    like = (structure_of(net()), Part(name="onnxruntime"))
    asked: list[str] = []

    def measure() -> Timed:
        asked.append("measured")
        return timed(latency)

    at_two = replace(REFERENCE, median_ms=2.0)
    assert Timings().found(like, at_two, measure) == Timings().found(like, at_two, measure) == timed(latency)
    assert len(asked) == (1 if latency is NARROW else 2)
    Timings().found(like, replace(REFERENCE, median_ms=3.0), measure)
    Timings().found((structure_of(net(5)), Part(name="onnxruntime")), at_two, measure)
    Timings().found(None, at_two, measure)
    Timings().found(None, at_two, measure)
    assert len(asked) == (5 if latency is NARROW else 6)


@pytest.mark.parametrize("latency", [NARROW, WIDE])
def test_what_was_timed_before_training_is_not_timed_after_it(
    latency: Latency, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trained file has the latency of the untrained one, unless that is known too badly."""
    again = replace(LATENCY, median_ms=7.0)
    monkeypatch.setattr(probing, "measure_latency", lambda *_, **__: latency)
    monkeypatch.setattr(trial_run, "measure_latency", lambda *_, **__: again)
    probe_file(PLAN, REFERENCE, probes=Probes(), timed=Timings())
    outcome = run_trial(PLAN, tmp_path / "trial", REFERENCE, instruments=Instruments(timed=Timings()))
    assert getattr(outcome, "latency", None) == (latency if latency is NARROW else again)


NAMES = """
from beats_search.models.cnn import Cnn
from beats_search.tensors.structure import name_of, structure_of
print(name_of((structure_of(Cnn(width=8).build((1, 8, 8), 10)), ("x", frozenset)) ))
"""


def test_a_structure_has_one_name_in_all_processes() -> None:
    """Whatever the hashes of a process are; another width has another name."""
    found = [
        subprocess.run(
            [sys.executable, "-c", NAMES.replace("width=8", f"width={width}")],
            env={"PYTHONHASHSEED": str(seed), "PYTHONPATH": ":".join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed, width in ((1, 8), (2, 8), (1, 16))
    ]
    assert found[0] == found[1] != found[2]
    assert len(found[0].strip()) == 64


def test_what_has_no_name_of_its_own_is_not_shared() -> None:
    """A function within a function may be one of many."""

    def inner(values: Tensor) -> Tensor:
        return values

    assert name_of((inner,)) is None
    assert name_of((lambda: None,)) is None
    assert name_of((object(),)) is None
    assert name_of((net,)) != name_of((timed,))


def test_a_network_that_cannot_be_compared_is_exported_once(exports: list[nn.Module], tmp_path: Path) -> None:
    """What has no structure has no template to be compared with either, and leaves none."""
    hooked = net()
    hooked.register_forward_hook(lambda *_: None)
    agreeing: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "_agrees", lambda *_: agreeing.append(None))
        export_onnx(hooked, EXAMPLE, tmp_path / "hooked.onnx")
    assert (len(exports), agreeing) == (1, [])
    assert not list((tmp_path / "shelf").iterdir())
