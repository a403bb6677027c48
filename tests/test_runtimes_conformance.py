"""Runtimes: one conformance suite over every runtime on the shelf, on exported files of tiny networks."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from beats_search import plugins
from beats_search.measuring.quality import check_parity
from beats_search.records.errors import TrialError
from beats_search.records.part import Part, Setting
from beats_search.tensors.data import DataBundle
from beats_search.tensors.network import with_preprocess
from beats_search.tensors.seams import Bench, Engine, Runtime, Technique

NAMES = plugins.names("runtimes")
ON_CUDA: dict[str, tuple[tuple[tuple[str, Setting], ...], ...]] = {
    "torch_eager": ((("device", "cuda"),),),
    "torch_compile": ((("device", "cuda"),), (("device", "cuda"), ("cuda_graphs", True))),
}


@dataclass(frozen=True, slots=True)
class Case:
    """A runtime with settings, and whether making a file takes it many seconds."""

    name: str
    settings: tuple[tuple[str, Setting], ...] = ()

    @property
    def slow(self) -> bool:
        return self.name == "torch_compile"

    def runtime(self, **more: Setting) -> Runtime:
        runtime: Runtime = plugins.make("runtimes", Part(name=self.name, settings=(*self.settings, *more.items())))
        return runtime

    def __str__(self) -> str:
        return "-".join([self.name, *(f"{key}={value}" for key, value in self.settings)])


def _cases() -> Iterator[Case]:
    for name in NAMES:
        yield Case(name)
        if torch.cuda.is_available():
            yield from (Case(name, settings) for settings in ON_CUDA.get(name, ()))


CASES = [pytest.param(case, marks=[pytest.mark.slow] if case.slow else [], id=str(case)) for case in _cases()]
QUICK = [case for case in CASES if not case.marks]
"""What compiles nothing: a package takes ten seconds to half a minute."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """A model, the runtime that has exported it, and the engine that runs the file."""

    case: Case
    runtime: Runtime
    engine: Engine
    model: nn.Module

    def expected(self, inputs: Tensor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = self.model(inputs)
        return logits


@contextmanager
def with_a_compiler() -> Iterator[None]:
    """Skip the test on a machine that cannot compile."""
    try:
        yield
    except TrialError as error:
        if "C++ compiler" in str(error):
            pytest.skip(str(error))
        raise


Deploy = Callable[..., Deployed]


@pytest.fixture(scope="module")
def deploy(tmp_path_factory: pytest.TempPathFactory) -> Deploy:
    """Return a function that exports a model in a runtime."""

    def exported(case: Case, model: nn.Module, shape: tuple[int, ...] = (1, 8, 8), **settings: Setting) -> Deployed:
        runtime = case.runtime(**settings)
        path = tmp_path_factory.mktemp("model") / f"model{runtime.suffix}"
        with with_a_compiler():
            return Deployed(case, runtime, runtime.deploy(model, torch.rand(1, *shape), path), model)

    return exported


@pytest.fixture(scope="module", params=CASES)
def deployed(request: pytest.FixtureRequest, deploy: Deploy) -> Deployed:
    """Return each runtime with a small float network that it has exported."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.append(nn.Linear(4, 10))
    with torch.no_grad():
        model.train()(torch.rand(64, 1, 8, 8))
    return deploy(request.param, model.eval())


@pytest.fixture(scope="module")
def on_grids(stripes: DataBundle, settled: Callable[[nn.Module, Tensor], nn.Module]) -> Callable[[Part], nn.Module]:
    """Return a function that builds a network and puts it on integer grids."""
    images = stripes.train.inputs
    technique: Technique = plugins.make("compression", Part(name="quantization", settings=(("bits", 8),)))
    bench = Bench(data=stripes, fine_tune=lambda model, *_, **__: model, seed=0)

    def build(part: Part) -> nn.Module:
        torch.manual_seed(0)
        network = plugins.make("models", part).build((1, 8, 8), 10)
        return technique.apply(settled(with_preprocess(stripes.preprocess, network), images), bench).eval()

    return build


@pytest.mark.parametrize("count", [1, 2, 7, 600])
def test_any_number_of_inputs_gives_the_model_s_logits(deployed: Deployed, count: int) -> None:
    """The file takes any batch and computes what the model computes, but for the last digits."""
    inputs = torch.rand(count, 1, 8, 8)
    check_parity(deployed.engine.logits(inputs), deployed.expected(inputs), exact=True)


def test_logits_are_the_same_each_time(deployed: Deployed) -> None:
    """The same inputs give the same logits, to the bit."""
    inputs = torch.rand(9, 1, 8, 8)
    assert torch.equal(deployed.engine.logits(inputs), deployed.engine.logits(inputs))


def test_loading_the_file_again_gives_the_same_engine(deployed: Deployed) -> None:
    """`load` of a deployed file is the deployed engine: logits to the bit, and what it says of itself."""
    inputs = torch.rand(5, 1, 8, 8)
    loaded = deployed.runtime.load(deployed.engine.path)
    assert torch.equal(loaded.logits(inputs), deployed.engine.logits(inputs))
    assert (loaded.path, loaded.executed_as) == (deployed.engine.path, deployed.engine.executed_as)


def test_the_file_is_there_under_the_ending_of_its_runtime(deployed: Deployed) -> None:
    """What ships is one file, as the runtime says."""
    assert deployed.engine.path.is_file()
    assert deployed.engine.path.suffix == deployed.runtime.suffix
    assert [path.name for path in deployed.engine.path.parent.iterdir()] == [deployed.engine.path.name]


def test_each_opening_is_a_call_of_its_own(deployed: Deployed) -> None:
    """`open` gives a call that can be made again and again, also after others were opened."""
    calls = [deployed.engine.open() for _ in range(5)]
    assert len(set(map(id, calls))) == 5
    assert all(call() is not None for call in (*calls, *calls))


def test_float_model_executes_as_fp32(deployed: Deployed) -> None:
    """A model that was not quantized runs on float kernels, and says so."""
    assert deployed.engine.executed_as == "fp32"


@pytest.mark.parametrize("case", QUICK)
def test_file_tells_no_paths_of_this_machine(deploy: Deploy, case: Case) -> None:
    """Nothing of the exporter's traces is left in a file that holds no machine code."""
    torch.manual_seed(0)
    found = deploy(case, nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval())
    assert str(Path(__file__).parents[1]).encode() not in found.engine.path.read_bytes()


@pytest.mark.parametrize(
    "model", [Part(name=name, settings=(("width", 16),)) for name in ("mlp", "resnet")], ids=lambda part: part.name
)
@pytest.mark.parametrize("case", QUICK)
def test_a_model_on_integer_grids_says_what_it_runs_on(
    deploy: Deploy, on_grids: Callable[[Part], nn.Module], stripes: DataBundle, case: Case, model: Part
) -> None:
    """Where integer kernels are, all heavy layers run on them; elsewhere the same integers are computed in float."""
    found = deploy(case, on_grids(model))
    images = stripes.train.inputs
    assert found.engine.executed_as == ("int8" if found.runtime.suffix == ".onnx" else "fp32")
    check_parity(found.engine.logits(images), found.expected(images), exact=False)
    assert found.engine.open()() is not None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("settings", [{"threads": 0}, {"batch_size": 0}])
def test_nonsense_is_refused(name: str, settings: dict[str, int]) -> None:
    """A call by no thread or of no input is refused."""
    with pytest.raises(ValueError, match="at least 1"):
        plugins.settings_class("runtimes", name)(**settings)


@pytest.mark.parametrize("name", NAMES)
def test_batch_size_is_no_knob(name: str) -> None:
    """Latencies of two batch sizes do not compare, so a search may not vary it."""
    found = {entry.name: entry.metadata.get("knob", True) for entry in fields(plugins.settings_class("runtimes", name))}
    assert found["batch_size"] is False


@pytest.mark.parametrize("case", QUICK)
def test_the_batch_that_is_timed_is_as_large_as_the_settings_say(deploy: Deploy, case: Case) -> None:
    """A call of many inputs takes longer than a call of one: what is timed is the whole batch."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 10)).eval()
    single, many = (deploy(case, model, batch_size=size).engine.open() for size in (1, 1024))
    assert _fastest(many) > 3 * _fastest(single)


def _fastest(call: Callable[[], object]) -> float:
    times = []
    for _ in range(20):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return min(times)


@pytest.mark.parametrize(
    "name",
    [name for name in NAMES if "device" in {entry.name for entry in fields(plugins.settings_class("runtimes", name))}],
)
def test_a_device_that_is_not_here_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file for a device that this machine does not have is neither made nor loaded, and the error says why."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    runtime = Case(name).runtime(device="cuda")
    path = tmp_path / f"model{runtime.suffix}"
    told = r"cuda is not on this machine; device needs to be auto or one of cpu"
    with pytest.raises(ValueError, match=told):
        runtime.deploy(nn.Flatten(), torch.rand(1, 1, 8, 8), path)
    with pytest.raises(ValueError, match=told):
        runtime.load(path)
    assert not path.exists()
