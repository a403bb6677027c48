"""Fixtures that several test files share: tiny networks, tiny data, and a bench."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import hypothesis
import pytest
import torch
from torch import Tensor, nn

from beats_search.app import running
from beats_search.app.problem import STORE
from beats_search.app.working import clustered, inline
from beats_search.measuring import quiet
from beats_search.runtimes import _onnx_export as exporter
from beats_search.tensors.data import DataBundle, Split, Standardize
from beats_search.tensors.seams import Bench
from beats_search.tensors.structure import Known

hypothesis.settings.register_profile("tests", deadline=None)  # the first call of torch takes seconds
hypothesis.settings.load_profile("tests")
torch.set_num_threads(1)  # two processes share the machine


def bundle_of(images: Tensor, labels: Tensor) -> DataBundle:
    """Return a data set whose three splits are the same images."""
    split = Split(inputs=images, labels=labels)
    return DataBundle(
        train=split,
        validation=split,
        test=split,
        classes=tuple(str(number) for number in range(10)),
        preprocess=Standardize([0.5], [0.3]),
    )


@pytest.fixture(scope="session")
def stripes() -> DataBundle:
    """Return 256 noisy 8×8 images of which column or row is bright: ten classes, easily learned."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(256) % 10
    images = 0.4 * torch.rand(256, 1, 8, 8, generator=random)
    for image, label in zip(images, labels.tolist(), strict=True):
        line = image[0, label] if label < 8 else image[0, :, label - 8]
        line += 0.6
    return bundle_of(images, labels)


@pytest.fixture(scope="session", autouse=True)
def _store_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep trained stages out of the home of whoever runs the tests, and theirs out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STORE, str(tmp_path_factory.mktemp("stages")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _inline() -> Iterator[None]:
    """Let runs in this process try their plans in it: a process of their own takes seconds to begin."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "hiring", lambda: nullcontext(lambda backend: clustered if backend == "ray" else inline))
        yield


@pytest.fixture(scope="session", autouse=True)
def _window_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let no test wait for others, or for whatever else of this user computes on the machine."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("window")
        patch.setattr(quiet, "_temporary", lambda: folder)
        yield


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Forget all graphs that were exported, and return the models that the exporter is called with from here on."""
    monkeypatch.setattr(exporter, "_TEMPLATES", Known(most=32))
    monkeypatch.setattr(exporter, "_OF_ANY_SIZE", Known(most=32))
    seen: list[nn.Module] = []
    program = exporter._program

    def noted(model: nn.Module, example: Tensor) -> torch.onnx.ONNXProgram:
        seen.append(model)
        return program(model, example)

    monkeypatch.setattr(exporter, "_program", noted)
    return seen


@pytest.fixture
def toys_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let spaces in temporary folders import the toys of the tests, in this process and in others."""
    tests = str(Path(__file__).parent)
    monkeypatch.syspath_prepend(tests)
    monkeypatch.setenv("PYTHONPATH", tests)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute on one thread, as fit does with work this small: sums over two are rounded otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _untrained(model: nn.Module, *_: object, **__: object) -> nn.Module:
    return model


@pytest.fixture
def bench(stripes: DataBundle) -> Bench:
    """Return a bench whose training does nothing."""
    return Bench(data=stripes, fine_tune=_untrained, seed=0)


@pytest.fixture(scope="session")
def settled() -> Callable[[nn.Module, Tensor], nn.Module]:
    """Return a function that gives a network's batch norms statistics and uneven scales, as training does."""

    def settle(model: nn.Module, images: Tensor) -> nn.Module:
        torch.manual_seed(0)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.2)
        with torch.inference_mode():
            for _ in range(20):
                model.train()(images)
        return model.eval()

    return settle
